package hsm_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
)

func TestParseURI(t *testing.T) {
	for s, want := range map[string]hsm.URI{
		"pkcs11:":                                   {},
		"pkcs11:token=a%20token;object=my-key":      {Token: "a token", Object: "my-key"},
		"pkcs11:id=%01%ff;type=private":             {ID: []byte{1, 255}, Type: "private"},
		"pkcs11:serial=1;x-vendor=2":                {Serial: "1"},
		"pkcs11:slot-id=327;model=x&y":              {SlotID: "327", Model: "x&y"},
		"pkcs11:?module-path=/usr/lib/m.so":         {ModulePath: "/usr/lib/m.so"},
		"pkcs11:token=t?pin-source=file:/etc/pin":   {Token: "t", PINSource: "file:/etc/pin"},
		"pkcs11:token=?module-name=softhsm2":        {ModuleName: "softhsm2"},
		"pkcs11:library-version=3;manufacturer=%3b": {LibraryVersion: "3", Manufacturer: ";"},
		"PKCS11:token=a":                            {Token: "a"},
	} {
		got, err := hsm.ParseURI(s)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v, %v", s, got, err)
			continue
		}
		again, err := hsm.ParseURI(got.String())
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%s is written %s, which is %+v, %v", s, got, again, err)
		}
	}
	for s, words := range map[string]string{
		"":                              "does not start",
		"pkcs11":                        "does not start",
		"Pkcs12:token=a":                "does not start",
		"pkcs11:token=a;token=b":        "two attributes",
		"pkcs11:tokens=a":               "unknown attribute",
		"pkcs11:token=a;":               "without a name",
		"pkcs11:token":                  "without a name",
		"pkcs11:=a":                     "without a name",
		"pkcs11:token=%4":               "invalid URL escape",
		"pkcs11:token=%zz":              "invalid URL escape",
		"pkcs11:token=a b":              "must be written %20",
		"pkcs11:token=a/b":              "must be written %2F",
		"pkcs11:token=a?pin-value=1234": "secrets do not belong",
		"pkcs11:pin-value=1234":         "secrets do not belong",
		"pkcs11:token=a?token=b":        "unknown attribute",
		"pkcs11:module-path=m.so":       "unknown attribute",
		"pkcs11:slot-id=x":              "not a number",
		"pkcs11:type=key":               "want public",
		"pkcs11:?module-path=m.so":      "not absolute",
		"pkcs11:?module-name=..%2fm":    "is a path",
	} {
		_, err := hsm.ParseURI(s)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v; want %q", s, err, words)
		}
		if err != nil && strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: the error tells the PIN: %v", s, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=a%20token;object=my-key;id=%01?module-path=/usr/lib/m.so&pin-source=file:/etc/pin")
	f.Add("pkcs11:x-vendor=1;slot-id=7;type=secret-key")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := hsm.ParseURI(s)
		if err != nil {
			return
		}
		again, err := hsm.ParseURI(u.String())
		if err != nil || again.String() != u.String() {
			t.Errorf("%q is written %q: %v", s, u, err)
		}
	})
}
