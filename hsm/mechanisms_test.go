package hsm_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// oddLists are modules that tell odd things of their mechanisms, and do them as before.
func oddLists() map[string][]hsmtest.Fault {
	all := map[string][]hsmtest.Fault{}
	for _, n := range []uint{0, 1, 200, 10_000} {
		all[fmt.Sprintf("%d listed", n)] = []hsmtest.Fault{{Listed: new(n)}}
	}
	for _, n := range []uint{0, 1, 1 << 31, ^uint(0)} {
		all[fmt.Sprintf("keys of %d", n)] = []hsmtest.Fault{{KeySize: new(n)}}
	}
	for bit := range 31 {
		flag := uint(1) << bit
		all[fmt.Sprintf("without flag %#x", flag)] = []hsmtest.Fault{{Function: "C_GetMechanismInfo", ClearFlags: flag}}
		all[fmt.Sprintf("with flag %#x", flag)] = []hsmtest.Fault{{Function: "C_GetMechanismInfo", SetFlags: flag}}
	}
	all["all flags"] = []hsmtest.Fault{{Function: "C_GetMechanismInfo", SetFlags: ^uint(0)}}
	all["no flags"] = []hsmtest.Fault{{Function: "C_GetMechanismInfo", ClearFlags: ^uint(0)}}
	for _, code := range someCodes {
		all[fmt.Sprintf("answers %#x", code)] = []hsmtest.Fault{{Function: "C_GetMechanismInfo", Code: code}, {Function: "C_GetMechanismList", Code: code}}
	}
	return all
}

// TestOddLists opens modules that tell odd things of their mechanisms: what counts is what they
// do.
func TestOddLists(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	first := open(t, c)
	seal(t, first)
	u := newUse(t, first)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	n := 0
	lists := oddLists()
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		if n++; !soak() && n%8 != 0 {
			continue
		}
		m.Inject(lists[name]...)
		s, err := hsm.Open(c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		k, err := s.Unseal(keystore.HMACSHA256, u.sealed, nil)
		if err == nil {
			err = errors.Join(u.same(k), k.Close(), (&use{s: s}).exchange())
		}
		if err := errors.Join(err, s.Close()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// usedMechanisms are those that a store asks of a module.
var usedMechanisms = []uint{
	pkcs11.CKM_AES_KEY_GEN, pkcs11.CKM_GENERIC_SECRET_KEY_GEN, pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, pkcs11.CKM_EC_KEY_PAIR_GEN,
	pkcs11.CKM_AES_CBC, pkcs11.CKM_SHA256_HMAC, pkcs11.CKM_AES_CMAC, ckmKeyWrap, pkcs11.CKM_AES_KEY_WRAP_PAD, pkcs11.CKM_AES_CBC_PAD,
	pkcs11.CKM_RSA_PKCS, pkcs11.CKM_RSA_PKCS_PSS, pkcs11.CKM_RSA_PKCS_OAEP, pkcs11.CKM_ECDSA, pkcs11.CKM_SHA256, pkcs11.CKM_AES_ECB,
}

// TestAbsentMechanisms takes each mechanism away: the token is refused with a line that names
// it, or opened, and then what needs the mechanism fails with such a line, and nothing else.
func TestAbsentMechanisms(t *testing.T) {
	for n, mechanism := range usedMechanisms {
		if !soak() && n%5 != 0 {
			continue
		}
		token := softhsm.Temp(t)
		m := hsmtest.New(t, token.Module)
		m.Inject(lacking(mechanism))
		name := hsm.MechanismName(mechanism)
		says := func(what string, err error) {
			t.Helper()
			if err != nil && (strings.Contains(err.Error(), "\n") || !blames(err) || !strings.Contains(err.Error(), "CKR_MECHANISM_INVALID") && !strings.Contains(err.Error(), name)) {
				t.Errorf("without %s: %s: %v", name, what, err)
			}
		}
		s, err := hsm.Open(hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN})
		if says("open", err); err != nil {
			continue
		}
		seals := true
		for _, a := range keystore.Algorithms() {
			label := "key-" + a.String()
			if a.Sealing() {
				label = keystore.SealingLabel(keystore.DefaultPrefix, a)
			} else if a.Size() > 2048 || a.Size() == 2048 && !soak() && mechanism != pkcs11.CKM_RSA_PKCS {
				continue // they take long to make
			}
			v, err := s.Create(label, a)
			says(a.String(), err)
			seals = seals && (err == nil || !a.Sealing())
			if err == nil && v.Key.Algorithm() != a {
				t.Errorf("without %s: a key for %v was made, and is for %v", name, a, v.Key.Algorithm())
			}
		}
		if seals {
			says("exchange", (&use{s: s}).exchange())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestLackLosesNothing asks again and again for what a module does not have, as any device can:
// the sessions stay, and the keys in them.
func TestLackLosesNothing(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	k, err := s.Generate(keystore.AES128CBC)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	m.Inject(lacking(pkcs11.CKM_RSA_PKCS_OAEP))
	for range 3 {
		if _, err := s.WrapFor(peerKey(), k); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v", err)
		}
	}
	if _, err := k.(keystore.Cipher).Encrypt(make([]byte, 16), nil); err != nil || s.Stats().Epoch != 1 {
		t.Errorf("the sessions were opened %d times: %v", s.Stats().Epoch, err)
	}
}

// TestVainRecoveries has any device ask again and again for what a module never does, with an answer
// that could mean that it has to be initialized: it is, once. After that the keys of others stay.
func TestVainRecoveries(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	v, err := s.Create("rsa", keystore.RSAUnwrap2048)
	if err != nil {
		t.Fatal(err)
	}
	pair, wrapped := v.Key.(keystore.Unwrapper), encryptOAEP(t, v.Key, make([]byte, 16))
	m.Inject(hsmtest.Fault{Function: "C_UnwrapKey", Mechanism: []uint{pkcs11.CKM_RSA_PKCS_OAEP}, Code: pkcs11.CKR_ARGUMENTS_BAD})
	for n := range 5 {
		if _, err := pair.Unwrap(keystore.AES128CBC, wrapped); err == nil || s.Stats().Epoch != 2 {
			t.Errorf("%d: the sessions were opened %d times: %v", n, s.Stats().Epoch, err)
		}
	}
	m.Clear()
	k, err := pair.Unwrap(keystore.AES128CBC, wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}

// TestUnprotectedLosesNothing has a peer's key, or nonsense, unwrapped by a module that protects no
// key which RSA-OAEP unwraps, and does not let that be repaired: other keys stay.
func TestUnprotectedLosesNothing(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	k, err := s.Generate(keystore.AES128CBC)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	pair, err := s.Generate(keystore.RSAUnwrap2048)
	if err != nil {
		t.Fatal(err)
	}
	defer pair.Close()
	wrapped := encryptOAEP(t, pair, make([]byte, 16))
	attributes := []uint{pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE}
	readable := hsmtest.Fault{Function: "C_UnwrapKey", Attribute: attributes, Ignore: true}
	for what, faults := range map[string][]hsmtest.Fault{
		"read-only":     {readable, {Function: "C_SetAttributeValue", Code: pkcs11.CKR_ATTRIBUTE_READ_ONLY}},
		"prohibited":    {readable, {Function: "C_SetAttributeValue", Code: pkcs11.CKR_ACTION_PROHIBITED}},
		"failed":        {readable, {Function: "C_SetAttributeValue", Code: pkcs11.CKR_FUNCTION_FAILED}},
		"not repaired":  {{Function: "C_GetAttributeValue", Attribute: attributes[:1], Told: new(uint(0))}},
		"not taken":     {{Function: "C_UnwrapKey", Mechanism: []uint{pkcs11.CKM_RSA_PKCS_OAEP}, Code: pkcs11.CKR_TEMPLATE_INCONSISTENT}},
		"not supported": {readable, {Function: "C_SetAttributeValue", Code: pkcs11.CKR_FUNCTION_NOT_SUPPORTED}},
	} {
		m.Inject(faults...)
		for _, data := range [][]byte{wrapped, make([]byte, 256)} {
			_, err := pair.(keystore.Unwrapper).Unwrap(keystore.AES128CBC, data)
			if err == nil || errors.Is(err, keystore.ErrLost) || errors.Is(err, keystore.ErrBadData) || s.Stats().Epoch != 1 {
				t.Errorf("%s: the sessions were opened %d times: %v", what, s.Stats().Epoch, err)
			}
		}
		m.Clear()
		if _, err := k.(keystore.Cipher).Encrypt(make([]byte, 16), nil); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if opened, err := pair.(keystore.Unwrapper).Unwrap(keystore.AES128CBC, wrapped); err != nil {
			t.Fatalf("%s: %v", what, err)
		} else if err := opened.Close(); err != nil {
			t.Error(err)
		}
	}
}
