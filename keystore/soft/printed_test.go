package soft

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestNotPrinted tries the verbs of package fmt, those that do not fit too, and JSON, on a store, its
// keys, and what a program keeps them in.
func TestNotPrinted(t *testing.T) {
	s := New()
	defer s.Close()
	raw := bytes.Repeat([]byte{171}, 32)
	v, err := s.Provision("marked", keystore.HMACSHA256, raw)
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.Import(keystore.HMACSHA256, raw)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	type program struct {
		store *Store
		key   keystore.Key
		mac   hmacKey
	}
	mac := k.(hmacKey)
	for _, value := range []any{s, k, v, mac, mac.key, &program{s, k, mac}, program{s, k, mac}, []any{s, k}, map[string]keystore.Key{"": k}} {
		for _, verb := range "vTtbcdoOqxXUeEfFgGsp" {
			for _, flag := range []string{"", "+", "#"} {
				text := fmt.Sprintf("%"+flag+string(verb), value)
				for _, form := range []string{"171 171", "171, 171", "abab", "ABAB", "0xab, 0xab", "«««", "253 253"} {
					if strings.Contains(text, form) {
						t.Errorf("%%%s%c of %T: %.300s", flag, verb, value, text)
					}
				}
			}
		}
		if text, err := json.Marshal(value); err == nil && bytes.Contains(text, []byte("q6ur")) {
			t.Errorf("JSON of %T: %s", value, text)
		}
	}
}
