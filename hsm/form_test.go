package hsm_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

const (
	ckmKWP   = 0x210B
	ckmPad   = pkcs11.CKM_AES_KEY_WRAP_PAD
	ckmLuna  = 0x80000170
	ckmCloud = 0x80002109
)

// lacking makes a module without mechanisms that SoftHSM wraps with.
func lacking(mechanisms ...uint) hsmtest.Fault {
	return hsmtest.Fault{Mechanism: mechanisms, Unknown: true}
}

func imitated(m, as uint, pad int, draws bool) hsmtest.Fault {
	return hsmtest.Fault{Mechanism: []uint{m}, As: as, Pad: pad, DrawsIV: draws}
}

// wrapForms are modules by how they wrap keys.
var wrapForms = []struct {
	name   string
	faults []hsmtest.Fault
	form   byte
	weak   string // that has to be allowed
}{
	{"key wrap", nil, 0, ""},
	{"of Luna", []hsmtest.Fault{lacking(ckmKeyWrap, ckmPad), imitated(ckmLuna, ckmKeyWrap, 0, false)}, 0, ""},
	{"of CloudHSM", []hsmtest.Fault{lacking(ckmKeyWrap, ckmPad), imitated(ckmCloud, ckmKeyWrap, 0, false)}, 0, ""},
	{"key wrap with more padding", []hsmtest.Fault{{Mechanism: []uint{ckmPad}, As: ckmKeyWrap, Pad: 8}, lacking(ckmKeyWrap)}, 2, ""},
	{"KWP", []hsmtest.Fault{lacking(ckmKeyWrap, ckmPad), imitated(ckmKWP, ckmPad, 0, false)}, 1, ""},
	{"KWP by its old number", []hsmtest.Fault{lacking(ckmKeyWrap)}, 2, ""},
	{"GCM with an IV of the module", []hsmtest.Fault{lacking(ckmKeyWrap, ckmPad), imitated(pkcs11.CKM_AES_GCM, ckmKeyWrap, 8, true)}, 3, ""},
	{"GCM with an IV of the caller", []hsmtest.Fault{lacking(ckmKeyWrap, ckmPad), imitated(pkcs11.CKM_AES_GCM, ckmKeyWrap, 8, false)}, 3, "seal-gcm-iv"},
	{"CBC", []hsmtest.Fault{lacking(ckmKeyWrap, ckmPad), imitated(pkcs11.CKM_AES_CBC_PAD, ckmKeyWrap, 8, false)}, 4, "seal-cbc-pad"},
	{"CBC that is worse than GCM", []hsmtest.Fault{lacking(ckmKeyWrap, ckmPad), imitated(pkcs11.CKM_AES_CBC_PAD, ckmKeyWrap, 8, false), imitated(pkcs11.CKM_AES_GCM, ckmKeyWrap, 8, true)}, 3, ""},
}

// TestForms seals with the best that a module has. A form that somebody with the PIN can
// bend has to be allowed by name. After an update of the module, what was sealed still
// opens, and a new version of the sealing key is for the better form.
func TestForms(t *testing.T) {
	for i, test := range wrapForms {
		if i%4 > 0 && !soak() {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			token := softhsm.Temp(t)
			m := hsmtest.New(t, token.Module)
			m.Inject(test.faults...)
			c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
			if test.weak != "" {
				_, err := hsm.Open(c)
				if !errors.Is(err, keystore.ErrWeakKey) || !strings.Contains(err.Error(), test.weak+": the module seals keys with") || !strings.Contains(err.Error(), "anyone who has the PIN") {
					t.Errorf("not allowed: %v", err)
				}
				c.AllowWeak = []string{test.weak}
			}
			s := open(t, c)
			seal(t, s)
			sealed := sealEach(t, s, test.form)
			unsealEach(t, s, sealed)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			// The vendor adds the best form, and keeps the others.
			updated := test.faults[:0:0]
			for _, f := range test.faults {
				if !f.Unknown {
					updated = append(updated, f)
				}
			}
			m.Inject(updated...)
			s = open(t, c)
			unsealEach(t, s, sealed)
			if test.form != 0 {
				sealEach(t, s, test.form) // the key is for nothing else
			}
			for label, a := range map[string]keystore.Algorithm{"msl-seal-session": keystore.SealSession256, "msl-seal-mac": keystore.SealMAC256} {
				if _, err := s.Create(label, a); err != nil {
					t.Fatal(err)
				}
			}
			sealed = append(sealed, sealEach(t, s, 0)...)
			unsealEach(t, s, sealed)
		})
	}
}

// TestAnyMechanism refuses a sealing key that wraps with CBC besides, where the module does
// not bind it to one mechanism, and says what that lets anyone who has the PIN do.
func TestAnyMechanism(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	cbc := imitated(pkcs11.CKM_AES_CBC_PAD, ckmKeyWrap, 8, false)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	for _, test := range []struct {
		faults []hsmtest.Fault
		allow  []string
		weak   string
	}{
		{[]hsmtest.Fault{cbc}, nil, ""}, // the key is bound
		{[]hsmtest.Fault{cbc, {Attribute: []uint{pkcs11.CKA_ALLOWED_MECHANISMS}, Ignore: true}}, nil, "seal-any-mechanism: it also wraps with CKM_AES_CBC_PAD"},
		{[]hsmtest.Fault{cbc, {Attribute: []uint{pkcs11.CKA_ALLOWED_MECHANISMS}, Unknown: true}}, nil, "seal-any-mechanism: it also wraps with CKM_AES_CBC_PAD"},
		{[]hsmtest.Fault{cbc, {Attribute: []uint{pkcs11.CKA_ALLOWED_MECHANISMS}, Unknown: true}}, []string{"seal-any-mechanism"}, ""},
		{[]hsmtest.Fault{{Attribute: []uint{pkcs11.CKA_ALLOWED_MECHANISMS}, Unknown: true}}, nil, ""}, // it has no CBC
	} {
		m.Inject(test.faults...)
		c.AllowWeak = test.allow
		s := open(t, c)
		for label, a := range map[string]keystore.Algorithm{"msl-seal-session": keystore.SealSession256, "msl-seal-wrapping": keystore.SealWrapping256} {
			_, err := s.Create(label, a)
			says(t, err, test.weak)
			s.Destroy(label, 0)
		}
		if _, err := s.Create("mac", keystore.HMACSHA256); err != nil {
			t.Error(err)
		}
	}
}

// A sealedKey is a sealed key, and what it makes of nothing.
type sealedKey struct{ blob, tag []byte }

// sealEach seals keys of each size, in a form.
func sealEach(t *testing.T, s *hsm.Store, form byte) (all []sealedKey) {
	t.Helper()
	for _, a := range []keystore.Algorithm{keystore.AESCMAC128, keystore.HMACSHA256, keystore.HMACSHA256Block} {
		k, err := s.Generate(a)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := s.Seal(k, []byte("context"))
		if err != nil {
			t.Fatal(err)
		}
		if parsed, err := keystore.ParseSealed(blob); err != nil || parsed.Form != form {
			t.Errorf("%v: form %d, %v; want %d", a, parsed.Form, err, form)
		}
		tag, err := k.(keystore.MAC).Sum(nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, sealedKey{blob, tag})
		k.Close()
	}
	return all
}

func unsealEach(t *testing.T, s *hsm.Store, all []sealedKey) {
	t.Helper()
	for _, one := range all {
		parsed, _ := keystore.ParseSealed(one.blob)
		k, err := s.Unseal(parsed.Algorithm, one.blob, []byte("context"))
		if err != nil {
			t.Errorf("%v in form %d: %v", parsed.Algorithm, parsed.Form, err)
			continue
		}
		if tag, err := k.(keystore.MAC).Sum(nil); err != nil || !bytes.Equal(tag, one.tag) {
			t.Errorf("%v in form %d: another tag, %v", parsed.Algorithm, parsed.Form, err)
		}
		k.Close()
		other := parsed
		if other.Form++; parsed.Form == 4 {
			other.Form = 0
		}
		if _, err := s.Unseal(parsed.Algorithm, other.Bytes(), []byte("context")); !errors.Is(err, keystore.ErrForeign) {
			t.Errorf("%v renamed to form %d: %v", parsed.Algorithm, other.Form, err)
		}
	}
}

// TestNoForm refuses a module in one line that says what its vendor would have to add.
func TestNoForm(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(lacking(ckmKeyWrap, ckmPad))
	_, err := hsm.Open(hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN})
	if !errors.Is(err, keystore.ErrWeakKey) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "the vendor would have to add CKM_AES_KEY_WRAP") {
		t.Error(err)
	}
}

// TestFormOfTheMoment does not choose a worse form because a call failed.
func TestFormOfTheMoment(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	for _, code := range []uint{pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_FUNCTION_NOT_SUPPORTED} {
		m.Inject(hsmtest.Fault{Function: "C_WrapKey", Code: code, Times: 1})
		s := open(t, c)
		seal(t, s)
		sealEach(t, s, 0)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
