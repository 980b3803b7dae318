package msl_test

import (
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestKeyRing opens service tokens that an older version of the key made, also
// where all versions have one id, as in the reference stacks.
func TestKeyRing(t *testing.T) {
	store := newStore(t)
	version := func(n byte, id string) msl.SymmetricKey {
		raw := rawKeys{id: string('a' + rune(n)), encryption: make([]byte, 16), mac: make([]byte, 32)}
		raw.encryption[0], raw.mac[0] = n, n
		key := symmetric(t, store, raw)
		key.KeyID = id
		return key
	}
	for name, ids := range map[string][3]string{"own ids": {"st#1", "st#2", "st#3"}, "one id": {"st", "st", "st"}} {
		var all msl.KeyRing
		for n, id := range ids {
			all = append(msl.KeyRing{version(byte(n+1)+ids[0][len(ids[0])-1], id)}, all...)
		}
		for n := range all {
			older := all[n:] // the newest version was n versions ago
			token, err := msl.NewServiceToken("st", []byte("kept"), msl.Unbound, msl.Unbound, older, "")
			if err != nil {
				t.Fatal(err)
			}
			got, err := msl.ParseServiceToken(token, msl.ServiceTokenKeys{"": all}, nil, nil)
			if err != nil || !got.Opened || string(got.Data) != "kept" {
				t.Errorf("%s: token of version %d: %+v, %v", name, len(all)-n, got, err)
			}
			if n > 0 {
				continue
			}
			got, err = msl.ParseServiceToken(token, msl.ServiceTokenKeys{"": all[1:]}, nil, nil)
			if err != nil || got.Opened || got.Data != nil {
				t.Errorf("%s: a ring without the key opens: %+v, %v", name, got, err)
			}
		}
	}
	if _, err := (msl.KeyRing{}).Encrypt(nil); err == nil {
		t.Error("an empty ring encrypts")
	}
	if _, err := (msl.KeyRing{}).Sign(nil); err == nil {
		t.Error("an empty ring signs")
	}
}
