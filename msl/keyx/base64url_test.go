package keyx

import (
	"encoding/hex"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestVectorsBase64URL decodes the recorded values as a part of a JWE. A lenient
// peer takes padding and the other alphabet too; RFC 7515 section 2 does not.
func TestVectorsBase64URL(t *testing.T) {
	var v struct {
		Cases []struct {
			Input string
			Hex   *string
		} `json:"b64url_decode"`
	}
	readVectors(t, "spec/base64.json", &v)
	stricter := map[string]bool{"": true, "AA==": true, "+/+/": true}
	suite, decoded := jweSuite{algKW, encGCM128}, 0
	for _, c := range v.Cases {
		j := jwe{header: base64url([]byte(`{"alg":"A128KW","enc":"A128GCM"}`)), key: []byte(c.Input), iv: []byte("AA"), ciphertext: []byte("AA"), tag: []byte("AA")}
		p, err := j.decode(suite)
		if c.Hex == nil || stricter[c.Input] {
			if !errors.Is(err, msl.ErrJWEParseError) {
				t.Errorf("%q: %x, %v", c.Input, p.key, err)
			}
			continue
		}
		decoded++
		if err != nil || hex.EncodeToString(p.key) != *c.Hex {
			t.Errorf("%q: %x, %v, want %s", c.Input, p.key, err, *c.Hex)
		}
	}
	if len(v.Cases) != 9 || decoded != 4 {
		t.Errorf("%d of %d cases decoded", decoded, len(v.Cases))
	}
}
