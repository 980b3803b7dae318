package entityauth

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

func TestDeriveWrappingKey(t *testing.T) {
	b, err := os.ReadFile("../../testdata/vectors/spec/symmetric.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Derivation struct {
			Cases []struct {
				Encryption string `json:"encryptionkey_hex"`
				HMAC       string `json:"hmackey_hex"`
				Wrapping   string `json:"wrappingkey_hex"`
			}
		} `json:"psk_wrapping_key_derivation"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Derivation.Cases) != 3 {
		t.Errorf("%d cases", len(v.Derivation.Cases))
	}
	for _, c := range v.Derivation.Cases {
		encryption, _ := hex.DecodeString(c.Encryption)
		mac, _ := hex.DecodeString(c.HMAC)
		if got := hex.EncodeToString(DeriveWrappingKey(encryption, mac)); got != c.Wrapping {
			t.Errorf("got %s, want %s", got, c.Wrapping)
		}
	}
}
