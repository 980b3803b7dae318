package hsm_test

import (
	"bytes"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestAttributeRefusedForAMoment has a module refuse a template a few times while a token is opened, as if it
// did not know an attribute: the keys that are unsealed later have all of them.
func TestAttributeRefusedForAMoment(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	s := open(t, c)
	seal(t, s)
	k, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, code := range []uint{pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID} {
		for skip, fired := 0, 1; fired > 0; skip++ {
			times := 2 + skip%2
			m.Inject(hsmtest.Fault{Function: "C_UnwrapKey", Code: code, Skip: skip, Times: times})
			s, err := hsm.Open(c)
			fired = m.Counters().Fired
			m.Clear()
			if err != nil {
				t.Errorf("call %d = %#x, %d times: %v", skip+1, code, times, err)
				continue
			}
			k, err := s.Unseal(keystore.HMACSHA256, sealed, nil)
			if err != nil {
				t.Fatal(err)
			}
			a := newAttacker(t, token)
			all, err := a.GetAttributeValue(a.session, pkcs11.ObjectHandle(hsm.Handle(k)), []*pkcs11.Attribute{pkcs11.NewAttribute(ckaCopyable, nil), pkcs11.NewAttribute(pkcs11.CKA_MODIFIABLE, nil)})
			if err != nil {
				t.Fatal(err)
			}
			for _, attribute := range all {
				if !bytes.Equal(attribute.Value, []byte{0}) {
					t.Errorf("call %d = %#x, %d times: attribute %#x is %x", skip+1, code, times, attribute.Type, attribute.Value)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
