package msl_test

import (
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestIssuerVersions opens the token of an issuer that has the same keys and numbers
// their versions differently.
func TestIssuerVersions(t *testing.T) {
	store := newStore(t)
	keys := func(version uint32, n byte) msl.IssuerKeys {
		raw := rawKeys{id: string('a'+rune(n)) + string('a'+rune(version)), encryption: make([]byte, 16), mac: make([]byte, 32)}
		raw.encryption[0], raw.mac[0] = n, n
		k := symmetric(t, store, raw)
		return msl.IssuerKeys{Version: version, Encryption: k.Encryption, MAC: k.MAC}
	}
	ours := &msl.Issuer{Name: "ours", Store: store, Keys: []msl.IssuerKeys{keys(2, 1)}}
	session, err := msl.GenerateSessionKeys(store)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := ours.Issue("device", nil, 1, session)
	if err != nil {
		t.Fatal(err)
	}
	defer issued.Release()
	for name, ring := range map[string][]msl.IssuerKeys{
		"the same number":            {keys(3, 3), keys(2, 1)},
		"another number":             {keys(5, 1)},
		"a number that others have":  {keys(3, 1), keys(2, 2)},
		"an older one than the hint": {keys(2, 4), keys(1, 1)},
	} {
		theirs := &msl.Issuer{Name: "theirs", Store: store, Keys: ring}
		opened, err := theirs.Open(issued.Token)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		opened.Release()
	}
	if _, err := (&msl.Issuer{Name: "strangers", Store: store, Keys: []msl.IssuerKeys{keys(2, 5)}}).Open(issued.Token); err == nil {
		t.Error("opened with other keys")
	}
}
