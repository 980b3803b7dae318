package hsm_test

import (
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestLiveCount counts session objects while a module refuses pairs as if the device had failed,
// so that keys are lost, and as if it could mean anything.
func TestLiveCount(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	for _, code := range []uint{pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_GENERAL_ERROR} {
		s := open(t, hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN, AllowWeak: []string{"unwrap-template"}})
		m.Inject(hsmtest.Fault{Function: "C_GenerateKeyPair", Attribute: []uint{0x40000212}, Code: code})
		var keys []keystore.Key
		for _, a := range []keystore.Algorithm{keystore.AES128CBC, keystore.HMACSHA256, keystore.RSAUnwrap2048, keystore.ECDSAP256} {
			k, err := s.Generate(a)
			if err == nil {
				keys = append(keys, k)
			}
		}
		for _, k := range keys {
			if err := k.Close(); err != nil {
				t.Error(err)
			}
		}
		if objects, _ := s.Live(); objects != 0 || m.Counters().SessionObjects != 0 {
			t.Errorf("%#x: %d objects are counted, and %d in the token", code, objects, m.Counters().SessionObjects)
		}
		m.Clear()
		s.Close()
	}
}
