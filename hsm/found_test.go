package hsm_test

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestLoginEachTime refuses a key that wants a login for each operation, which would fail as if
// the session were not logged in, so that all sessions would be opened anew again and again.
func TestLoginEachTime(t *testing.T) {
	s, token := newStore(t)
	a := newAttacker(t, token)
	label := pkcs11.NewAttribute(pkcs11.CKA_LABEL, "each-time")
	_, _, err := a.GenerateKeyPair(a.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)},
		[]*pkcs11.Attribute{flag(pkcs11.CKA_TOKEN, true), label, pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, 2048), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})},
		[]*pkcs11.Attribute{flag(pkcs11.CKA_TOKEN, true), label, flag(pkcs11.CKA_PRIVATE, true), flag(pkcs11.CKA_SENSITIVE, true), flag(pkcs11.CKA_EXTRACTABLE, false),
			flag(pkcs11.CKA_SIGN, true), flag(pkcs11.CKA_DECRYPT, false), flag(pkcs11.CKA_UNWRAP, false), flag(pkcs11.CKA_SIGN_RECOVER, false), flag(pkcs11.CKA_DERIVE, false),
			flag(pkcs11.CKA_ALWAYS_AUTHENTICATE, true), flag(ckaCopyable, false), flag(pkcs11.CKA_MODIFIABLE, false)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lookup("each-time"); !errors.Is(err, keystore.ErrWrongKey) || !strings.Contains(err.Error(), "CKA_ALWAYS_AUTHENTICATE") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	if all, err := s.List(); err != nil || len(all) != 4 {
		t.Errorf("%d keys are listed, %v", len(all), err)
	}
	if epoch := s.Stats().Epoch; epoch != 1 {
		t.Errorf("the sessions were opened %d times", epoch)
	}
}

// TestOddTruths has a module tell truth values in other forms than one byte of 0 or 1: no key
// counts as one that may do less than it may.
func TestOddTruths(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: "pkcs11:token=" + token.Label + "?module-path=" + m.Path, PIN: token.PIN}
	s := open(t, c)
	v, err := s.Create("signs", keystore.RSASign2048)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(nil)
	if _, err := v.Key.(crypto.Signer).Sign(nil, digest[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, attribute := range []uint{pkcs11.CKA_DECRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE, pkcs11.CKA_SIGN_RECOVER, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_MODIFIABLE, pkcs11.CKA_PRIVATE} {
		s := open(t, c)
		m.Inject(hsmtest.Fault{Function: "C_GetAttributeValue", Attribute: []uint{attribute}, Garble: true}) // 0xff, or 0xfe for true
		if _, err := s.Lookup("signs"); err == nil {
			t.Errorf("attribute %#x: %v", attribute, err)
		}
		m.Clear()
		s.Close()
	}
}
