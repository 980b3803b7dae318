package keyx

import (
	"encoding/hex"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestVectorsBase64URL decodes the recorded values as a part of a JWE, which must not be empty,
// and as the key of a JWK.
func TestVectorsBase64URL(t *testing.T) {
	var v struct {
		Cases []struct {
			Input string
			Hex   *string
		} `json:"b64url_decode"`
	}
	readVectors(t, "spec/base64.json", &v)
	suite, decoded := jweSuite{algKW, encGCM128}, 0
	for _, c := range v.Cases {
		j := jwe{header: base64url([]byte(`{"alg":"A128KW","enc":"A128GCM"}`)), key: []byte(c.Input), iv: []byte("AA"), ciphertext: []byte("AA"), tag: []byte("AA")}
		p, err := j.decode(suite)
		k, err2 := parseJWK([]byte(`{"kty":"oct","k":"` + c.Input + `"}`))
		if c.Hex == nil || c.Input == "" {
			if !errors.Is(err, msl.ErrJWEParseError) || err2 == nil {
				t.Errorf("%q: %x, %v, %s, %v", c.Input, p.key, err, k.k, err2)
			}
			continue
		}
		decoded++
		if err != nil || hex.EncodeToString(p.key) != *c.Hex {
			t.Errorf("%q: %x, %v, want %s", c.Input, p.key, err, *c.Hex)
		}
		room := make([]byte, len(*c.Hex)/2)
		if err := errors.Join(err2, decodeURL(room, k.k)); err != nil || hex.EncodeToString(room) != *c.Hex {
			t.Errorf("JWK %q: %x, %v, want %s", c.Input, room, err, *c.Hex)
		}
	}
	if len(v.Cases) != 9 || decoded != 6 {
		t.Errorf("%d of %d cases decoded", decoded, len(v.Cases))
	}
}
