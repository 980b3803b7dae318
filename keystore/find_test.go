package keystore_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

func TestFind(t *testing.T) {
	s := soft.New()
	for range 2 {
		if _, err := s.Create("mac", keystore.HMACSHA256); err != nil {
			t.Fatal(err)
		}
	}
	ring, err := s.Lookup("mac")
	if err != nil {
		t.Fatal(err)
	}
	var tags [2][]byte
	for i, v := range ring {
		k, err := keystore.As[keystore.MAC]("mac", v)
		if err != nil {
			t.Fatal(err)
		}
		if tags[i], err = k.Sum(nil); err != nil {
			t.Fatal(err)
		}
	}
	k, err := keystore.Find[keystore.MAC](s, "mac")
	if err != nil {
		t.Fatal(err)
	}
	if tag, err := k.Sum(nil); err != nil || string(tag) != string(tags[0]) || string(tag) == string(tags[1]) {
		t.Errorf("found another version than the newest: %v", err)
	}

	_, err = keystore.Find[keystore.MAC](s, "absent")
	says(t, err, keystore.ErrNotFound, `"absent"`)
	_, err = keystore.Find[crypto.Signer](s, "mac")
	says(t, err, keystore.ErrWrongKey, `key "mac" is for hmac-sha256`, "crypto.Signer")
	_, err = keystore.Find[keystore.Cipher](s, "mac")
	says(t, err, keystore.ErrWrongKey, "keystore.Cipher")
	s.Close()
	_, err = keystore.Find[keystore.MAC](s, "mac")
	says(t, err, keystore.ErrClosed)
}

// says asks for an error that wraps want and has every word in its text.
func says(t *testing.T, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

// Key IDs are in the state files of deployments: none may ever change.
func TestKeyID(t *testing.T) {
	block, _ := pem.Decode([]byte(knownPublic))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := keystore.KeyID(public); err != nil || id != "5a7a78cca4a0f420" {
		t.Errorf("key ID %q, %v", id, err)
	}
	if id, err := keystore.KeyID("no key"); err == nil || id != "" {
		t.Errorf("a string has the key ID %q", id)
	}
}

// knownPublic is the public key of RFC 6979 appendix A.2.5.
const knownPublic = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYP7UuiVanTHJYet0xjVtaMBJuJI7
Yfps5mliLmDyn7Z5A/4QCLi8maQa6elWKLxk8vGyDC1+n1F3o8KU1EYimQ==
-----END PUBLIC KEY-----
`

func TestHMACBlock(t *testing.T) {
	s := soft.New()
	defer s.Close()
	raw := make([]byte, 32)
	rand.Read(raw)
	var tags []string
	for a, b := range map[keystore.Algorithm][]byte{keystore.HMACSHA256: raw, keystore.HMACSHA256Block: keystore.HMACBlock(raw)} {
		k, err := s.Import(a, b)
		if err != nil {
			t.Fatal(err)
		}
		tag, err := k.(keystore.MAC).Sum([]byte("data"))
		if err != nil {
			t.Fatal(err)
		}
		tags = append(tags, string(tag))
	}
	if tags[0] != tags[1] {
		t.Error("a key and its block compute other tags")
	}
	if keystore.HMACBlock(make([]byte, 65)) != nil {
		t.Error("a key of 65 bytes fits a block of 64")
	}
}

func TestSamePublic(t *testing.T) {
	one, other := ecdsaKey(t), ecdsaKey(t)
	for _, c := range []struct {
		a, b crypto.PublicKey
		same bool
	}{
		{one.Public(), one.Public(), true},
		{one.Public(), other.Public(), false},
		{one.Public(), nil, false},
		{nil, one.Public(), false},
		{nil, nil, false},
	} {
		if keystore.SamePublic(c.a, c.b) != c.same {
			t.Errorf("%v and %v: same is not %v", c.a, c.b, c.same)
		}
	}
}

func ecdsaKey(t *testing.T) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
