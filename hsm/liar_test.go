package hsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// lies are ways in which a module answers CKR_OK and what it returned is wrong.
var lies = map[string]func(function string) (f hsmtest.Fault, can bool){
	"nothing done": func(function string) (hsmtest.Fault, bool) {
		return hsmtest.Fault{Function: function, Succeed: true}, true
	},
	"other bytes": func(function string) (hsmtest.Fault, bool) {
		return hsmtest.Fault{Function: function, Garble: true}, tellsSomething(function)
	},
	"no length": func(function string) (hsmtest.Fault, bool) {
		none := function == "C_GetSlotList" || function == "C_FindObjects" // that says that there is nothing
		return hsmtest.Fault{Function: function, Length: new(uint(0))}, tellsSomething(function) && !none
	},
	"length of one": func(function string) (hsmtest.Fault, bool) {
		return hsmtest.Fault{Function: function, Length: new(uint(1))}, tellsSomething(function)
	},
	"huge length": func(function string) (hsmtest.Fault, bool) {
		return hsmtest.Fault{Function: function, Length: new(^uint(0) >> 1)}, tellsSomething(function)
	},
}

func tellsSomething(function string) bool {
	switch function {
	case "C_GetSlotList", "C_GetAttributeValue", "C_FindObjects", "C_Encrypt", "C_Decrypt", "C_Sign", "C_WrapKey", "C_DigestFinal":
		return true
	}
	return false
}

var lyingFunctions = []string{
	"C_Initialize", "C_Finalize", "C_GetSlotList", "C_GetSlotInfo", "C_GetTokenInfo", "C_GetMechanismInfo", "C_OpenSession", "C_CloseSession",
	"C_GetSessionInfo", "C_Login", "C_CreateObject", "C_DestroyObject", "C_GetAttributeValue", "C_SetAttributeValue", "C_FindObjectsInit",
	"C_FindObjects", "C_FindObjectsFinal", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_SignInit", "C_Sign", "C_DigestInit",
	"C_DigestKey", "C_DigestFinal", "C_GenerateKey", "C_GenerateKeyPair", "C_WrapKey", "C_UnwrapKey", "C_GenerateRandom",
}

// blames reports whether an error blames the device, and not a key, data or what is not there.
func blames(err error) bool {
	for _, wrong := range []error{keystore.ErrBadData, keystore.ErrForeign, keystore.ErrWrongKey, keystore.ErrNotFound, keystore.ErrBadTag, keystore.ErrExists} {
		if errors.Is(err, wrong) {
			return false
		}
	}
	return true
}

// TestLiesAtStart opens a token whose module lies all the time: that works, or the error blames
// the device.
func TestLiesAtStart(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	first := open(t, c)
	seal(t, first)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for name, lie := range lies {
		for _, function := range lyingFunctions {
			fault, can := lie(function)
			if !can {
				continue
			}
			what := function + ", " + name
			m.Inject(fault)
			s, err := hsm.Open(c)
			if err == nil {
				_, err = s.Lookup("msl-seal-session")
				m.Clear()
				if e := s.Close(); e != nil {
					t.Errorf("%s: close: %v", what, e)
				}
			}
			m.Clear()
			if err != nil && !blames(err) {
				t.Errorf("%s: %v", what, err)
			}
			again := open(t, c)
			if _, err := again.Lookup("msl-seal-session"); err != nil {
				t.Fatalf("%s: afterwards: %v", what, err)
			}
			again.Close()
		}
	}
}

// TestLiesInUse lies once, a few times and always while keys are used.
func TestLiesInUse(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{Wait: 300e6})
	u := newUse(t, s)
	n := 0
	for name, lie := range lies {
		for i, function := range lyingFunctions {
			fault, can := lie(function)
			stays := function == "C_DestroyObject" || function == "C_CloseSession" // what stays is not seen
			crypts := function == "C_Encrypt" || function == "C_Decrypt"           // nor are other bytes, but by the peer
			if !can || stays || crypts && fault.Garble {
				continue
			}
			for j, times := range []int{1, 3, 0} {
				if n++; !soak() && (i+j)%3 != 0 {
					continue
				}
				fault.Times = times
				what := fmt.Sprintf("%s, %s, %d times", function, name, times)
				hsm.DoubtAnew(s) // which is done once a second
				m.Inject(fault)
				u.run(t, what, false)
				m.Clear()
				u.recovered(t, what, m)
			}
		}
	}
}

// TestLiesOfAdministration has a module lie while provisioned keys are looked up, made and
// destroyed: what is told is there or gone, is.
func TestLiesOfAdministration(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	v, err := s.Create("mac", keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := v.Key.(keystore.MAC).Sum(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, lie := range lies {
		for _, function := range []string{"C_GetAttributeValue", "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_DestroyObject", "C_GenerateKey", "C_CreateObject"} {
			fault, can := lie(function)
			if !can {
				continue
			}
			for _, times := range []int{1, 0} {
				fault.Times = times
				what := fmt.Sprintf("%s, %s, %d times", function, name, times)
				m.Inject(fault)
				made, err := s.Create("new", keystore.AES128CBC)
				m.Clear()
				after := versions(t, s)
				if err == nil && (len(after["new"]) != 1 || after["new"][0] != made.Number) {
					t.Errorf("%s: version %d was made, and %v are there", what, made.Number, after["new"])
				}
				if len(after["new"]) == 0 {
					if _, err := s.Create("new", keystore.AES128CBC); err != nil {
						t.Fatal(err)
					}
				}
				m.Inject(fault)
				err = s.Destroy("new", 0)
				m.Clear()
				if left := versions(t, s)["new"]; err == nil && len(left) != 0 {
					t.Errorf("%s: told to be destroyed, and %v are there", what, left)
				}
				if len(versions(t, s)["new"]) > 0 {
					if err := s.Destroy("new", 0); err != nil {
						t.Fatal(err)
					}
				}
				if v, err := s.Lookup("mac"); err != nil {
					t.Fatalf("%s: %v", what, err)
				} else if got, err := v[0].Key.(keystore.MAC).Sum(nil); err != nil || !bytes.Equal(got, tag) {
					t.Fatalf("%s: another key: %v", what, err)
				}
			}
		}
	}
}

// TestNoPINSet has a module set no PIN, and say that it did.
func TestNoPINSet(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(hsmtest.Fault{Function: "C_InitPIN", Succeed: true})
	if err := hsm.InitToken(m.Path, "made", []byte("12345678"), []byte("123456")); err == nil || !strings.Contains(err.Error(), "C_InitPIN: the module answered CKR_OK, and the user has no PIN") {
		t.Errorf("%v", err)
	}
	m.Clear()
	if err := hsm.InitToken(m.Path, "made", []byte("12345678"), []byte("123456")); err != nil {
		t.Errorf("finished: %v", err)
	}
}

// TestZeroRandom has a module fill nothing with random bytes.
func TestZeroRandom(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	b := bytes.Repeat([]byte{7}, 32)
	m.Inject(hsmtest.Fault{Function: "C_GenerateRandom", Succeed: true, Times: 1})
	if err := s.Random(b); err != nil || bytes.Equal(b, make([]byte, 32)) || bytes.Equal(b, bytes.Repeat([]byte{7}, 32)) {
		t.Errorf("once: %x, %v", b, err)
	}
	m.Inject(hsmtest.Fault{Function: "C_GenerateRandom", Succeed: true})
	if err := s.Random(b); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("always: %x, %v", b, err)
	}
}

// TestNothingRevealed has a module read no value of what it unwrapped.
func TestNothingRevealed(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	raw := []byte("sixteen bytes!!!")
	reveal, err := s.Provision("reveals", keystore.AESReveal128, raw)
	if err != nil {
		t.Fatal(err)
	}
	wrap, err := s.Import(keystore.AESWrap128, raw)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := wrap.(keystore.DataWrapper).WrapData(raw)
	if err != nil {
		t.Fatal(err)
	}
	m.Inject(hsmtest.Fault{Function: "C_GetAttributeValue", Attribute: []uint{pkcs11.CKA_VALUE}, Succeed: true})
	if got, err := reveal.Key.(keystore.Revealer).Reveal(wrapped); !errors.Is(err, keystore.ErrUnavailable) || got != nil {
		t.Errorf("%x, %v", got, err)
	}
	m.Clear()
	if got, err := reveal.Key.(keystore.Revealer).Reveal(wrapped); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("afterwards: %x, %v", got, err)
	}
}

// TestNotLost has a module say that it does not know any key: those that can be had again are
// not lost for it.
func TestNotLost(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	provisioned, err := s.Create("mac", keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	var keys [2]keystore.Key
	for i := range keys {
		if keys[i], err = s.Generate(keystore.HMACSHA256); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Seal(keys[0], nil); err != nil {
		t.Fatal(err)
	}
	m.Inject(hsmtest.Fault{Function: "C_SignInit", Code: pkcs11.CKR_OBJECT_HANDLE_INVALID})
	for name, k := range map[string]keystore.Key{"provisioned": provisioned.Key, "sealed": keys[0]} {
		if _, err := k.(keystore.MAC).Sum(nil); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrLost) {
			t.Errorf("%s key: %v", name, err)
		}
	}
	if _, err := keys[1].(keystore.MAC).Sum(nil); !errors.Is(err, keystore.ErrLost) {
		t.Errorf("a key that was only there: %v", err)
	}
}
