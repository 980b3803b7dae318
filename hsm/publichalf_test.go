package hsm_test

import (
	"crypto"
	"crypto/rsa"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestPrivateKeyTellsNoExponent has private keys without a public exponent, which a token need
// not store with them (PKCS #11 v2.40 mechanisms, section 2.1.3): the public keys have it.
func TestPrivateKeyTellsNoExponent(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	silent := hsmtest.Fault{Function: "C_GetAttributeValue", Attribute: []uint{pkcs11.CKA_PUBLIC_EXPONENT}, Unknown: true, Times: 1}
	for _, a := range []keystore.Algorithm{keystore.RSASign2048, keystore.RSAUnwrap2048} {
		first := open(t, c)
		made, err := first.Create(a.String(), a)
		if err != nil {
			t.Fatal(err)
		}
		want := made.Key.(interface{ Public() crypto.PublicKey }).Public().(*rsa.PublicKey)
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		m.Inject(silent)
		s := open(t, c)
		v, err := s.Lookup(a.String())
		if err != nil || !want.Equal(v[0].Key.(interface{ Public() crypto.PublicKey }).Public()) {
			t.Fatalf("%v: %v", a, err)
		}
		if m.Counters().Fired != 1 {
			t.Errorf("%v: no key was without", a)
		}
		if k, ok := v[0].Key.(crypto.Signer); ok {
			m.Inject(silent, hsmtest.Fault{Function: "C_Sign", VanishSessions: true, Times: 1})
			if _, err := k.Sign(nil, make([]byte, 32), crypto.SHA256); err != nil || s.Stats().Epoch < 2 {
				t.Errorf("after a recovery: %v", err)
			}
		}
		m.Clear()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
