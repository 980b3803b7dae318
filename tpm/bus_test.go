package tpm_test

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestBus listens between the store and the TPM: no secret passes in clear, and
// no changed answer is believed.
func TestBus(t *testing.T) {
	p := tpmtest.Start(t)
	b := &bus{}
	d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(b.quirk), time.Minute))
	defer d.Close()
	pin := []byte("the PIN of the keys")
	s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state"), PIN: pin}))
	defer s.Close()
	raw, plain := random(32), []byte("what only the two sides may read")
	mac := must[keystore.Key](t)(s.Import(keystore.HMACSHA256, raw)).(keystore.MAC)
	tag := must[[]byte](t)(mac.Sum(plain))
	c := must[keystore.Key](t)(s.Import(keystore.AES256CBC, raw)).(keystore.Cipher)
	ciphertext := must[[]byte](t)(c.Encrypt(make([]byte, 16), plain))
	must[[]byte](t)(c.Decrypt(make([]byte, 16), ciphertext))
	v := must[keystore.Version](t)(s.Create("key", keystore.HMACSHA256))
	must[[]byte](t)(v.Key.(keystore.MAC).Sum(plain))
	for what, secret := range map[string][]byte{"PIN": pin, "key": raw, "plaintext": plain[:16], "plaintext's end": plain[16:], "tag": tag} {
		if bytes.Contains(b.all, secret) {
			t.Errorf("the %s passed in clear", what)
		}
	}
	// Each answer with a changed byte is refused, and the next is good.
	for at := 10; at < 90; at += 3 {
		b.flip(0x155, at)
		if got, err := mac.Sum(plain); err == nil {
			t.Errorf("an answer changed at byte %d was taken: %t", at, bytes.Equal(got, tag))
		}
		if got := must[[]byte](t)(mac.Sum(plain)); !bytes.Equal(got, tag) {
			t.Fatal("another tag afterwards")
		}
	}
}

// A bus records the traffic, and changes one answer on request.
type bus struct {
	mu      sync.Mutex
	all     []byte
	command uint32
	at      int
}

func (b *bus) flip(command uint32, at int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.command, b.at = command, at
}

func (b *bus) quirk(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
	answer, err := send(command)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(append(b.all, command...), answer...)
	if b.command != 0 && tpmtest.Command(command) == b.command && b.at < len(answer) {
		answer[b.at] ^= 4
		b.command = 0
	}
	return answer, err
}

// TestSwappedStorageKey lets an attacker on the bus answer with another storage key.
func TestSwappedStorageKey(t *testing.T) {
	victim := tpmtest.Start(t)
	c := tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}
	d := device(t, victim)
	s := must[*tpm.Store](t)(d.InitStore(c))
	must[[]byte](t)(s.ExportTSS2("msl-seal-mac", 1))
	s.Close()
	var public []byte
	if err := d.Do(func(tp transport.TPM) error {
		var err error
		public, err = tp.Send(readPublic(0x81000001))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	d.Close()
	// Another TPM, behind an attacker who answers TPM2_ReadPublic like the right one.
	liar := tpmtest.Start(t)
	ld := device(t, liar)
	ls := must[*tpm.Store](t)(ld.InitStore(tpm.StoreConfig{State: c.State + "2"}))
	ls.Close()
	ld.Close()
	lying := must[*tpm.Device](t)(tpm.NewDevice(liar.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		if tpmtest.Command(command) == 0x173 {
			return public, nil
		}
		return send(command)
	}), time.Minute))
	defer lying.Close()
	_, err := lying.OpenStore(c)
	if err == nil || !strings.Contains(err.Error(), "storage key") {
		t.Errorf("a TPM without the storage key was taken: %v", err)
	}
}

func readPublic(handle uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x73}, handle)
}
