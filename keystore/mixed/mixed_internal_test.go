package mixed

import (
	"bytes"
	"crypto/subtle"
	"testing"
	"testing/cryptotest"
)

// A pattern is a device whose bytes are known.
type pattern byte

func (x pattern) Random(p []byte) error {
	for i := range p {
		p[i] = byte(i/blockSize)*3 + byte(i) + byte(x)
	}
	return nil
}

// TestXOR has the operating system return the same bytes twice: what differs is what the
// device returned, and what was used of that is gone.
func TestXOR(t *testing.T) {
	var got, known [2][100]byte
	for i, device := range []pattern{0, 0x55} {
		cryptotest.SetGlobalRandom(t, 1)
		r := New(device, 0)
		if _, err := r.Read(got[i][:]); err != nil {
			t.Fatal(err)
		}
		device.Random(known[i][:])
		if used := r.memory.Bytes()[:100]; !bytes.Equal(used, make([]byte, 100)) {
			t.Errorf("used bytes are still there: %x", used)
		}
		r.Close()
		if r.memory.Bytes() != nil {
			t.Error("the memory is not closed")
		}
	}
	subtle.XORBytes(got[0][:], got[0][:], got[1][:])
	subtle.XORBytes(known[0][:], known[0][:], known[1][:])
	if got[0] != known[0] {
		t.Errorf("%x, want %x", got[0], known[0])
	}
	if _, err := New(pattern(0), 0).Read(got[0][:]); err != nil || got[0] == known[0] {
		t.Errorf("%v: bytes of the device alone", err)
	}
}
