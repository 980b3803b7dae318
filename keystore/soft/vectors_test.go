package soft

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/wycheproof"
	"github.com/msl-hsm/msl-hsm/keystore"
)

const vectors = "../../testdata/vectors"

// hexBytes is a JSON string of hexadecimal digits.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// An envelope carries the ciphertext of a recorded encryption.
type envelope struct {
	Text string
}

func (e envelope) ciphertext(t *testing.T) []byte {
	t.Helper()
	var inner struct{ Ciphertext []byte }
	if err := json.Unmarshal([]byte(e.Text), &inner); err != nil {
		t.Fatal(err)
	}
	return inner.Ciphertext
}

type symmetricVectors struct {
	Keys struct {
		Encryption hexBytes `json:"encryptionkey_hex"`
		HMAC       hexBytes `json:"hmackey_hex"`
		Wrapping   hexBytes `json:"wrappingkey_hex"`
	}
	EncryptSign []struct {
		Plaintext hexBytes `json:"plaintext_hex"`
		IV        hexBytes `json:"iv_hex"`
		Envelope  struct {
			Base64 []byte `json:"b64"`
			envelope
		}
		Signature []byte `json:"signature_over_envelope_b64"`
	} `json:"encrypt_sign"`
	Wrap []struct {
		Data    hexBytes `json:"data_hex"`
		Wrapped hexBytes `json:"wrapped_hex"`
	}
	CMACKey hexBytes `json:"cmac_key_hex"`
	CMAC    []struct {
		Data hexBytes `json:"data_hex"`
		Tag  hexBytes `json:"cmac_hex"`
	}
	Derivation struct {
		Salt  hexBytes `json:"salt_hex"`
		Info  hexBytes `json:"info_hex"`
		Cases []struct {
			Encryption hexBytes `json:"encryptionkey_hex"`
			HMAC       hexBytes `json:"hmackey_hex"`
			Wrapping   hexBytes `json:"wrappingkey_hex"`
		}
	} `json:"psk_wrapping_key_derivation"`
}

func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectors, "spec", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

func provisionSecret(t *testing.T, s *Store, a keystore.Algorithm, raw []byte) keystore.Key {
	t.Helper()
	v, err := s.Provision("vector "+a.String(), a, raw)
	if err != nil {
		t.Fatal(err)
	}
	return v.Key
}

func TestRecordedCipherAndMAC(t *testing.T) {
	var v symmetricVectors
	readVectors(t, "symmetric.json", &v)
	s := New()
	defer s.Close()
	c := provisionSecret(t, s, keystore.AES128CBC, v.Keys.Encryption).(keystore.Cipher)
	m := provisionSecret(t, s, keystore.HMACSHA256, v.Keys.HMAC).(keystore.MAC)
	if len(v.EncryptSign) < 8 {
		t.Fatalf("%d vectors", len(v.EncryptSign))
	}
	for _, test := range v.EncryptSign {
		tag, err := m.Sum(test.Envelope.Base64)
		if err != nil || !bytes.Equal(tag, test.Signature) {
			t.Errorf("tag %x, %v, want %x", tag, err, test.Signature)
		}
		want := test.Envelope.ciphertext(t)
		if len(test.Plaintext) == 0 {
			continue // an envelope's empty plaintext is not encrypted at all
		}
		got, err := c.Encrypt(test.IV, test.Plaintext)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("encrypt %x: %x, %v, want %x", test.Plaintext, got, err, want)
		}
		back, err := c.Decrypt(test.IV, want)
		if err != nil || !bytes.Equal(back, test.Plaintext) {
			t.Errorf("decrypt %x: %x, %v", want, back, err)
		}
	}
}

func TestRecordedWrap(t *testing.T) {
	var v symmetricVectors
	readVectors(t, "symmetric.json", &v)
	block, err := aes.NewCipher(v.Keys.Wrapping)
	if err != nil {
		t.Fatal(err)
	}
	wrapped := 0
	for _, test := range v.Wrap {
		got, err := wrap(block, test.Data)
		// RFC 3394 wraps two blocks and more; no key is shorter.
		if len(test.Data) < 16 {
			if err == nil {
				t.Errorf("wrapped %d bytes", len(test.Data))
			}
			continue
		}
		wrapped++
		if err != nil || !bytes.Equal(got, test.Wrapped) {
			t.Errorf("wrap %x: %x, %v, want %x", test.Data, got, err, test.Wrapped)
		}
		back, err := unwrap(block, test.Wrapped)
		if err != nil || !bytes.Equal(back, test.Data) {
			t.Errorf("unwrap %x: %x, %v", test.Wrapped, back, err)
		}
	}
	if wrapped < 5 {
		t.Errorf("%d vectors", wrapped)
	}
}

func TestRecordedCMAC(t *testing.T) {
	var v symmetricVectors
	readVectors(t, "symmetric.json", &v)
	s := New()
	defer s.Close()
	k := provisionSecret(t, s, keystore.AESCMAC128, v.CMACKey).(keystore.MAC)
	if len(v.CMAC) < 5 {
		t.Fatalf("%d vectors", len(v.CMAC))
	}
	for _, test := range v.CMAC {
		tag, err := k.Sum(test.Data)
		if err != nil || !bytes.Equal(tag, test.Tag) {
			t.Errorf("tag of %x: %x, %v, want %x", test.Data, tag, err, test.Tag)
		}
	}
}

// TestRecordedDerivation derives wrapping keys from pairs of keys with the HMAC
// keys of a store.
func TestRecordedDerivation(t *testing.T) {
	var v symmetricVectors
	readVectors(t, "symmetric.json", &v)
	if len(v.Derivation.Cases) < 3 {
		t.Fatalf("%d vectors", len(v.Derivation.Cases))
	}
	for _, test := range v.Derivation.Cases {
		outer := hmacPool(v.Derivation.Salt)
		inner := (&material{substance: &substance{unused: outer}}).hmac(nil, append(bytes.Clone(test.Encryption), test.HMAC...))
		s := New()
		defer s.Close()
		got, err := provisionSecret(t, s, keystore.HMACSHA256, inner).(keystore.MAC).Sum(v.Derivation.Info)
		if err != nil || !bytes.Equal(got[:16], test.Wrapping) {
			t.Errorf("derived %x, %v, want %x", got, err, test.Wrapping)
		}
	}
}

type asymmetricVectors struct {
	Cases []struct {
		Context   string
		Key       string
		Data      hexBytes `json:"data_hex"`
		Signature hexBytes `json:"signature_hex"`
		Envelope  envelope
	}
}

func privateKey(t *testing.T, name string) crypto.Signer {
	t.Helper()
	der, err := os.ReadFile(filepath.Join(vectors, "keys", name+".pkcs8.der"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer)
}

func TestRecordedAsymmetric(t *testing.T) {
	var v asymmetricVectors
	readVectors(t, "asymmetric.json", &v)
	s := New()
	defer s.Close()
	signed, opened := 0, 0
	for _, test := range v.Cases {
		key := privateKey(t, test.Key)
		digest := sha256.Sum256(test.Data)
		switch key := key.(type) {
		case *ecdsa.PrivateKey:
			signed++
			recordedECDSA(t, s, key, digest[:], test.Signature)
		case *rsa.PrivateKey:
			if len(test.Signature) > 0 {
				signed++
				recordedRSA(t, s, key, digest[:], test.Signature)
				continue
			}
			// The data is not a key, so no Unwrap opens it: this checks the
			// primitive that Unwrap uses.
			got, err := rsa.DecryptOAEP(sha1.New(), nil, key, test.Envelope.ciphertext(t), nil)
			if err == nil && bytes.Equal(got, test.Data) {
				opened++
			}
		}
	}
	if signed != 2 || opened != 1 {
		t.Errorf("%d recorded signatures and %d ciphertexts", signed, opened)
	}
}

func recordedRSA(t *testing.T, s *Store, key *rsa.PrivateKey, digest, want []byte) {
	t.Helper()
	v, err := s.ProvisionKeyPair("rsa", keystore.RSASign2048, key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Key.(crypto.Signer).Sign(nil, digest, crypto.SHA256)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("signature %x, %v, want %x", got, err, want)
	}
}

func recordedECDSA(t *testing.T, s *Store, key *ecdsa.PrivateKey, digest, recorded []byte) {
	t.Helper()
	v, err := s.ProvisionKeyPair("ecdsa", keystore.ECDSAP256, key)
	if err != nil {
		t.Fatal(err)
	}
	signer := v.Key.(crypto.Signer)
	public := signer.Public().(*ecdsa.PublicKey)
	if !ecdsa.VerifyASN1(public, digest, recorded) {
		t.Error("the recorded signature does not verify")
	}
	signature, err := signer.Sign(nil, digest, crypto.SHA256)
	if err != nil || !ecdsa.VerifyASN1(public, digest, signature) {
		t.Errorf("signature %x, %v", signature, err)
	}
}

// TestWrapVectors asks the vectors of Project Wycheproof with keys of every size. The
// suite of key stores asks those of 16 bytes; sealing keys have 32.
func TestWrapVectors(t *testing.T) {
	wycheproof.Ask(t, wycheproof.Read(t, "aes_wrap"), func(_ wycheproof.Group, v wycheproof.Vector) wycheproof.Verdict {
		block, err := aes.NewCipher(v.Key)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := unwrap(block, v.Ciphertext)
		if err != nil {
			if !errors.Is(err, keystore.ErrBadData) {
				t.Errorf("%v: %v", v, err)
			}
			return wycheproof.Accepted(false)
		}
		wrapped, err := wrap(block, v.Message)
		return wycheproof.Accepted(err == nil && bytes.Equal(raw, v.Message) && bytes.Equal(wrapped, v.Ciphertext))
	})
}
