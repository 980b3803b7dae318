package keyx

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/wycheproof"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

type jweVector struct {
	Alg, Enc, Format string
	KEK              hexBytes `json:"kek_hex"`
	CEK              hexBytes `json:"cek_hex"`
	IV               hexBytes `json:"iv_hex"`
	Plaintext        []byte   `json:"plaintext_b64"`
	Serialization    string
}

func readJWE(t testing.TB) []jweVector {
	t.Helper()
	var v struct{ Cases []jweVector }
	readVectors(t, "spec/jwe.json", &v)
	if len(v.Cases) < 8 {
		t.Fatalf("%d cases", len(v.Cases))
	}
	return v.Cases
}

// recordedPair is the requester's key pair of the recordings.
func recordedPair(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	der, err := os.ReadFile("../../testdata/vectors/keys/awe_rsa2048.pkcs8.der")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PrivateKey)
}

func newStore(t testing.TB) *soft.Store {
	s := soft.New()
	t.Cleanup(func() { s.Close() })
	return s
}

// provision gives a store a key of known bytes.
func provision(t testing.TB, s *soft.Store, label string, a keystore.Algorithm, raw []byte) keystore.Key {
	t.Helper()
	v, err := s.Provision(label, a, raw)
	if err != nil {
		t.Fatal(err)
	}
	return v.Key
}

// keys are what a recorded JWE is made with.
func (v jweVector) keys(t testing.TB) (wrap, unwrap func([]byte) ([]byte, error)) {
	if v.Alg == algKW {
		s := newStore(t)
		return provision(t, s, "wrap", keystore.AESWrap128, v.KEK).(keystore.DataWrapper).WrapData,
			provision(t, s, "reveal", keystore.AESReveal128, v.KEK).(keystore.Revealer).Reveal
	}
	pair := recordedPair(t)
	return func(b []byte) ([]byte, error) {
			return rsa.EncryptOAEP(sha1.New(), rand.Reader, &pair.PublicKey, b, nil)
		},
		func(b []byte) ([]byte, error) { return rsa.DecryptOAEP(sha1.New(), nil, pair, b, nil) }
}

func (j jwe) format(name string) []byte {
	if name == "JWE_CS" {
		return j.compact()
	}
	return j.json()
}

func TestVectorsJWE(t *testing.T) {
	exact := 0
	for _, v := range readJWE(t) {
		suite := jweSuite{v.Alg, v.Enc}
		wrap, unwrap := v.keys(t)
		got, err := suite.open([]byte(v.Serialization), func(b []byte) ([]byte, error) {
			cek, err := unwrap(b)
			if !bytes.Equal(cek, v.CEK) {
				t.Errorf("%v: another key", suite)
			}
			return cek, err
		})
		if err != nil || !bytes.Equal(got.Bytes(), v.Plaintext) {
			t.Errorf("%v %s: %q, %v", suite, v.Format, got.Bytes(), err)
		}
		j, err := suite.seal(v.Plaintext, bytes.NewReader(append(bytes.Clone(v.CEK), v.IV...)), wrap)
		if err != nil {
			t.Fatal(err)
		}
		own := j.format(v.Format)
		if string(own) == v.Serialization {
			exact++
		}
		for _, b := range [][]byte{own, j.compact(), j.json()} {
			if got, err := suite.open(b, unwrap); err != nil || !bytes.Equal(got.Bytes(), v.Plaintext) {
				t.Errorf("%v %s: our own reads as %q, %v", suite, v.Format, got.Bytes(), err)
			}
		}
	}
	if exact != 4 { // RSA-OAEP draws by itself
		t.Errorf("%d are written as they were recorded", exact)
	}
}

func TestJWERefused(t *testing.T) {
	v := readJWE(t)[3]
	suite := jweSuite{v.Alg, v.Enc}
	_, unwrap := v.keys(t)
	parts := strings.Split(v.Serialization, ".")
	with := func(i int, part string) string {
		changed := append([]string{}, parts...)
		changed[i] = part
		return strings.Join(changed, ".")
	}
	header := func(s string) string { return with(0, string(base64url([]byte(s)))) }
	flip := func(i int) string {
		b := []byte(parts[i])
		if b[0]++; !isBase64(rune(b[0])) {
			b[0] = 'A'
		}
		return with(i, string(b))
	}
	for what, c := range map[string]struct {
		text string
		want msl.Code
	}{
		"nothing":            {"", msl.ErrJWEParseError},
		"four parts":         {strings.Join(parts[:4], "."), msl.ErrJWEParseError},
		"six parts":          {v.Serialization + ".AAAA", msl.ErrJWEParseError},
		"no header":          {with(0, ""), msl.ErrJWEParseError},
		"no key":             {with(1, ""), msl.ErrJWEParseError},
		"no vector":          {with(2, ""), msl.ErrJWEParseError},
		"no ciphertext":      {with(3, ""), msl.ErrJWEParseError},
		"no tag":             {with(4, ""), msl.ErrJWEParseError},
		"not base64url":      {with(3, "AA*A"), msl.ErrJWEParseError},
		"line break":         {with(3, "AA\nAA"), msl.ErrJWEParseError},
		"header no JSON":     {header("x"), msl.ErrJWEParseError},
		"no alg":             {header(`{"enc":"A128GCM"}`), msl.ErrJWEParseError},
		"unknown alg":        {header(`{"alg":"dir","enc":"A128GCM"}`), msl.ErrJWEParseError},
		"unknown enc":        {header(`{"alg":"A128KW","enc":"A192GCM"}`), msl.ErrJWEParseError},
		"other alg":          {header(`{"alg":"RSA-OAEP","enc":"A128GCM"}`), msl.ErrJWEAlgorithmMismatch},
		"other enc":          {header(`{"alg":"A128KW","enc":"A256GCM"}`), msl.ErrJWEAlgorithmMismatch},
		"short tag":          {with(4, parts[4][:16]), msl.ErrInvalidAlgorithmParams},
		"short vector":       {with(2, parts[2][:8]), msl.ErrInvalidAlgorithmParams},
		"other ciphertext":   {flip(3), msl.ErrUnwrapError},
		"other tag":          {flip(4), msl.ErrUnwrapError},
		"other vector":       {flip(2), msl.ErrUnwrapError},
		"header otherwise":   {header(`{"alg":"A128KW","enc":"A128GCM"}`), msl.ErrUnwrapError},
		"object":             {`{}`, msl.ErrJWEParseError},
		"no recipient":       {`{"recipients":[],"ciphertext":"AAAA","initialization_vector":"AAAA"}`, msl.ErrJWEParseError},
		"object, cut off":    {`{"recipients":`, msl.ErrJWEParseError},
		"object, no members": {`{"recipients":[{}]}`, msl.ErrJWEParseError},
		"object for one":     {`{"recipients":{},"ciphertext":"AAAA","initialization_vector":"AAAA"}`, msl.ErrJWEParseError},
		"recipient no JSON":  {`{"recipients":["x",{}],"ciphertext":"AAAA","initialization_vector":"AAAA"}`, msl.ErrJWEParseError},
	} {
		if v.Enc != encGCM128 {
			t.Fatal("another vector")
		}
		if _, err := suite.open([]byte(c.text), unwrap); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	if _, err := suite.open([]byte(v.Serialization), func([]byte) ([]byte, error) { return make([]byte, 24), nil }); !errors.Is(err, msl.ErrInvalidSymmetricKey) {
		t.Errorf("a key of 24 bytes: %v", err)
	}
}

// TestJWEAccepted has the padding that a JWK may have too, and recipients after the first, which
// nobody reads.
func TestJWEAccepted(t *testing.T) {
	for _, v := range readJWE(t)[:4] {
		j, err := parseJWE([]byte(v.Serialization))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []*[]byte{&j.ciphertext, &j.tag} {
			*part = append(bytes.Clone(*part), "=="[:-len(*part)&3]...)
		}
		object := bytes.Replace(j.json(), []byte("}]"), []byte(`},{},"x",[1],7]`), 1)
		_, unwrap := v.keys(t)
		for _, b := range [][]byte{j.compact(), object} {
			if got, err := (jweSuite{v.Alg, v.Enc}).open(b, unwrap); err != nil || !bytes.Equal(got.Bytes(), v.Plaintext) {
				t.Errorf("%s: %v", b, err)
			}
		}
		j.tag = append(j.tag, '=')
		if _, err := (jweSuite{v.Alg, v.Enc}).open(j.compact(), unwrap); !errors.Is(err, msl.ErrJWEParseError) {
			t.Errorf("too much padding: %v", err)
		}
	}
}

func FuzzJWE(f *testing.F) {
	for _, v := range readJWE(f) {
		f.Add([]byte(v.Serialization))
	}
	cek := make([]byte, 16)
	f.Fuzz(func(t *testing.T, b []byte) {
		suite := jweSuite{algKW, encGCM128}
		unwrap := func([]byte) ([]byte, error) { return bytes.Clone(cek), nil }
		var e *msl.Error
		if _, err := suite.open(b, unwrap); err != nil && !errors.As(err, &e) {
			t.Errorf("not an error of the protocol: %v", err)
		}
		j, err := parseJWE(b)
		if err != nil {
			return
		}
		p, err := j.decode(suite)
		if err != nil {
			return
		}
		again, err := parseJWE(j.json())
		if err != nil || string(again.compact()) != string(j.compact()) {
			t.Errorf("%q is written as %q: %v", b, j.json(), err)
		}
		if q, err := again.decode(suite); err != nil || !bytes.Equal(q.ciphertext, p.ciphertext) {
			t.Errorf("%q: %v", b, err)
		}
	})
}

// TestGCMVectors asks the vectors of Project Wycheproof of what encrypts a JWE. Of the
// vectors' initialization vectors it takes those of 12 bytes, as open does.
func TestGCMVectors(t *testing.T) {
	wycheproof.Ask(t, wycheproof.Read(t, "aes_gcm"), func(g wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
		switch {
		case len(v.Key) == 24:
			return wycheproof.NotAsked("key of 24 bytes")
		case len(v.IV) != gcmIV || len(v.Tag) != gcmTag:
			return wycheproof.NotAsked("initialization vector of another size than 12 bytes")
		}
		gcm, err := newGCM(v.Key)
		if err != nil {
			t.Fatal(err)
		}
		sealed := append(bytes.Clone(v.Ciphertext), v.Tag...)
		plain, err := gcm.Open(nil, v.IV, sealed, v.AAD)
		if err == nil && !bytes.Equal(gcm.Seal(nil, v.IV, v.Message, v.AAD), sealed) {
			t.Errorf("%v: sealed otherwise", v)
		}
		return wycheproof.Accepted(err == nil && bytes.Equal(plain, v.Message))
	})
}
