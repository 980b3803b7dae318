package tpm_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestCapabilitiesInPieces has a TPM that lists an item at a time: nothing is taken to be
// missing, and a storage key is found behind others.
func TestCapabilitiesInPieces(t *testing.T) {
	s, p, c := newStore(t)
	whole := s.Device()
	must[keystore.Version](t)(s.Create("key", keystore.ECDSAP256))
	s.Close()
	evict(t, whole, 0x81000001)
	persistRSA(t, whole, 0x81000001)
	persistRSA(t, whole, 0x81000002)
	move(t, whole, 0x81000123)
	want := whole.Capabilities()
	whole.Close()

	d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(tpmtest.Piecewise(1)), time.Minute))
	defer d.Close()
	if got := d.Capabilities(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	s = openStore(t, d, c)
	sign(t, must[[]keystore.Version](t)(s.Lookup("key"))[0].Key)
	if at, err := d.FindPersistent(nameOf(t, s)); at != 0x81000123 || err != nil {
		t.Errorf("found at %#x, %v", uint32(at), err)
	}
}

// TestCapabilitiesWithoutEnd gives up a TPM that always has more of the same.
func TestCapabilitiesWithoutEnd(t *testing.T) {
	p := tpmtest.Start(t)
	for what, change := range map[string]func(answer []byte) []byte{
		"the same": func(answer []byte) []byte { return answer },
		"nothing": func(answer []byte) []byte {
			return append(answer[:5:5], append([]byte{19}, append(answer[6:15:15], 0, 0, 0, 0)...)...)
		},
	} {
		_, err := tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
			listed := tpmtest.Command(command) == uint32(tpm2.TPMCCGetCapability) && command[13] == byte(tpm2.TPMCapAlgs)
			if listed {
				copy(command[14:], []byte{0, 0, 0, 0, 0, 0, 0, 1})
			}
			answer, err := send(command)
			if listed && err == nil {
				answer[10] = 1
				answer = change(answer)
			}
			return answer, err
		}), time.Minute)
		says(t, what, err, keystore.ErrUnavailable, "TPM2_GetCapability: the answer is malformed")
	}
}
