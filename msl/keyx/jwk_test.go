package keyx

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// hexBytes is a JSON string of hexadecimal digits.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../testdata/vectors", name))
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

type jwkVectors struct {
	Encodings []struct {
		B64 []byte
	}
	Parse []struct {
		Input  string
		Result struct {
			OK *struct {
				Type, Usage, Alg string
				Extractable      bool
				Key              hexBytes `json:"key_hex"`
			}
			Error *struct{ InternalCode int }
		}
	}
}

func TestVectorsJWK(t *testing.T) {
	var v jwkVectors
	readVectors(t, "spec/jwk.json", &v)
	symmetric := 0
	for _, e := range v.Encodings {
		k, err := parseJWK(e.B64)
		if err != nil {
			t.Errorf("%s: %v", e.B64, err)
			continue
		}
		if k.kty == "rsa" {
			if k.n == nil || k.e == nil {
				t.Errorf("%s has no numbers", e.B64)
			}
			continue
		}
		symmetric++
		p := map[string]purpose{"A128CBC": forEncryption, "HS256": forSignature, "A128KW": forWrapping}[k.alg]
		room := make([]byte, p.size)
		if err := k.key(p, room); err != nil {
			t.Error(err)
		}
		if text := k.text(room); !bytes.Equal(text.Bytes(), e.B64) {
			t.Errorf("written as %s, want %s", text.Bytes(), e.B64)
		}
	}
	if symmetric != 4 || len(v.Parse) < 10 {
		t.Errorf("%d symmetric keys, %d inputs", symmetric, len(v.Parse))
	}
	for _, c := range v.Parse {
		k, err := parseJWK([]byte(c.Input))
		if c.Result.Error != nil {
			if !errors.Is(err, msl.Code(c.Result.Error.InternalCode-100000)) {
				t.Errorf("%s: %v, want %d", c.Input, err, c.Result.Error.InternalCode)
			}
			continue
		}
		want := c.Result.OK
		if err != nil || k.kty != want.Type || k.use != want.Usage || k.alg != want.Alg || k.extractable != want.Extractable || !bytes.Equal(k.k, base64url(want.Key)) {
			t.Errorf("%s: %+v, %v, want %+v", c.Input, k, err, want)
		}
	}
}

// TestJWKSizes asks for the sizes that decide which RSA keys and paddings do.
func TestJWKSizes(t *testing.T) {
	for want, text := range map[int]int{
		110: len(forEncryption.withOps().append(nil, make([]byte, 16))),
		125: len(forSignature.withOps().append(nil, make([]byte, 32))),
	} {
		if text != want {
			t.Errorf("%d bytes, want %d", text, want)
		}
	}
	for n := 1; n < 20; n++ {
		text := append(append([]byte{'{'}, bytes.Repeat([]byte{'x'}, n)...), '}')
		padded := pad(text).Bytes()
		if len(padded)%8 != 0 || len(padded) > len(text)+7 || string(bytes.ReplaceAll(padded, []byte(" "), nil)) != string(text) || padded[0] != '{' {
			t.Errorf("%q is padded to %q", text, padded)
		}
	}
}

func TestJWKRefused(t *testing.T) {
	key := string(base64url(make([]byte, 16)))
	for text, want := range map[string]error{
		`no JWK`: errNoJWK,
		`{"kty":"oct","alg":"A128CBC","k":"` + key + `"`:                        errNoJWK,
		`{"k":"` + key + `"}`:                                                   msl.ErrMSLParseError,
		`{"kty":"oct","alg":"A128CBC"}`:                                         msl.ErrMSLParseError,
		`{"kty":"oct","alg":1,"k":"` + key + `"}`:                               msl.ErrMSLParseError,
		`{"kty":"oct","key_ops":"encrypt","alg":"A128CBC","k":"` + key + `"}`:   msl.ErrMSLParseError,
		`{"kty":"oct","extractable":"false","alg":"A128CBC","k":"` + key + `"}`: msl.ErrMSLParseError,
		`{"kty":"oct","alg":"A128CBC","k":17}`:                                  msl.ErrMSLParseError,
		`{"kty":"oct","alg":"A128CBC","k":"A"}`:                                 msl.ErrInvalidJWKKeyData,
		`{"kty":"oct","alg":"A128CBC","k":"` + key + `==="}`:                    msl.ErrInvalidJWKKeyData,
		`{"kty":"oct","alg":"A128CBC","k":"AAAA===="}`:                          msl.ErrInvalidJWKKeyData,
		`{"kty":"oct","alg":"A128CBC","k":"=="}`:                                msl.ErrInvalidJWKKeyData,
		`{"kty":"rsa","n":"AQAB","e":""}`:                                       msl.ErrInvalidJWKKeyData,
		`{"kty":"rsa","n":"AQAB","d":"="}`:                                      msl.ErrInvalidJWKKeyData,
		`{"kty":"rsa","e":"AQAB"}`:                                              msl.ErrMSLParseError,
		`{"kty":"oct","alg":"A128CBC","k":"AA*A"}`:                              msl.ErrInvalidJWKKeyData,
		`{"kty":"oct","alg":"A128CBC","k":"\u00e9AAAAAAAAAAAAAAAAAAAAA"}`:       msl.ErrInvalidJWKKeyData,
		`{"kty":"oct","alg":"A128CBC","k":"AAAA"}`:                              msl.ErrSessionKeyCreationFailure,
		`{"kty":"oct","k":"` + key + `"}`:                                       msl.ErrSessionKeyCreationFailure,
		`{"kty":"oct","alg":"HS256","k":"` + key + `"}`:                         msl.ErrSessionKeyCreationFailure,
		`{"kty":"oct","alg":"A128KW","use":"enc","k":"` + key + `"}`:            msl.ErrSessionKeyCreationFailure,
		`{"kty":"rsa","n":"AQAB","e":"AQAB"}`:                                   msl.ErrSessionKeyCreationFailure,
		`{"kty":"","use":"","alg":"A128CBC","k":"` + key + `"}`:                 msl.ErrUnidentifiedJWKType,
		`{"kty":"oct","use":"","key_ops":[""],"alg":"","k":"` + key + `"}`:      msl.ErrUnidentifiedJWKUsage,
		`{"kty":"oct","key_ops":[""],"alg":"","k":"` + key + `"}`:               msl.ErrUnidentifiedJWKKeyOp,
		`{"kty":"oct","key_ops":[],"alg":"","k":""}`:                            msl.ErrUnidentifiedJWKAlgorithm,
		`{"kty":"oct","alg":"A128CBC","k":"` + key + `","k":"` + key + `"}`:     errNoJWK,
	} {
		k, err := parseJWK([]byte(text))
		if err == nil {
			err = k.key(forEncryption, make([]byte, 16))
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
	for _, padding := range []string{"", "=", "=="} { // as the reference stack
		k, err := parseJWK([]byte(`{"kty":"oct","alg":"A128CBC","k":"` + key + padding + `"}`))
		if err == nil {
			err = k.key(forEncryption, make([]byte, 16))
		}
		if err != nil {
			t.Errorf("padding %q: %v", padding, err)
		}
	}
}

// TestJWKEscaped reads keys as JSON writers may escape them: some escape each slash or equals sign.
func TestJWKEscaped(t *testing.T) {
	for _, key := range []string{`_-__AAAAAAAAAAAAAAAAAA`, `\/+\/\/AAAAAAAAAAAAAAAAAA==`, `\u002f+\u002F\/AAAAAAAAAAAAAAAAAA\u003d\u003d`} {
		room := make([]byte, 16)
		k, err := parseJWK([]byte(`{"kty":"oct","alg":"A128CBC","k":"` + key + `"}`))
		if err == nil {
			err = k.key(forEncryption, room)
		}
		if want := []byte{0xff, 0xef, 0xff, 12: 0, 15: 0}; err != nil || !bytes.Equal(room, want) {
			t.Errorf("%s: %x, %v", key, room, err)
		}
	}
}

func FuzzJWK(f *testing.F) {
	var v jwkVectors
	readVectors(f, "spec/jwk.json", &v)
	for _, e := range v.Encodings {
		f.Add(e.B64)
	}
	for _, c := range v.Parse {
		f.Add([]byte(c.Input))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseJWK(bytes.Clone(b))
		var e *msl.Error
		if err != nil {
			if err != errNoJWK && !errors.As(err, &e) {
				t.Errorf("not an error of the protocol: %v", err)
			}
			return
		}
		room := make([]byte, 16)
		if k.key(forEncryption, room) != nil {
			return
		}
		text := forEncryption.withUse().append(nil, room)
		again, err := parseJWK(text)
		other := make([]byte, 16)
		if err == nil {
			err = again.key(forEncryption, other)
		}
		if err != nil || !bytes.Equal(room, other) {
			t.Errorf("%s is written as %s: %v", b, text, err)
		}
	})
}
