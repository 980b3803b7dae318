package entityauth

import (
	"crypto/x509"
	"encoding/base64"
	"testing"
)

// TestKeyID has the id of the P-256 generator point, which must never change: it is in
// the state of servers.
func TestKeyID(t *testing.T) {
	der, err := base64.StdEncoding.DecodeString("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := KeyID(key); err != nil || id != "5cd252fb0ce89324" {
		t.Errorf("%s, %v", id, err)
	}
	if id, err := KeyID("key"); err == nil || id != "" {
		t.Errorf("no key: %q, %v", id, err)
	}
}
