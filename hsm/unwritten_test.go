package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/internal/oaeptrial"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// An appending key writes into memory that had something else in it.
type appending interface {
	AppendEncrypt(dst, iv, plaintext []byte) ([]byte, error)
	AppendDecrypt(dst, iv, ciphertext []byte) ([]byte, error)
}

// TestUnwritten has a module answer CKR_OK and write nothing. That is not an answer: not the
// plaintext for its own ciphertext, not what was in the memory before for a tag or for a
// plaintext, and no zeros. Once, it is not noticed; always, it is a failure of the device.
func TestUnwritten(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	u := newUse(t, s)
	generated := func() keystore.Key {
		k, err := s.Generate(keystore.AES128CBC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		return k
	}
	provisioned := func(label string, a keystore.Algorithm) keystore.Key {
		v, err := s.Create(label, a)
		if err != nil {
			t.Fatal(err)
		}
		return v.Key
	}
	mac := u.mac.(interface {
		AppendSum(dst, data []byte) ([]byte, error)
	})
	signer, wrapper := provisioned("sign", keystore.RSASign2048).(crypto.Signer), provisioned("wrap", keystore.AESWrap128).(keystore.DataWrapper)
	decrypter := provisioned("decrypt", keystore.RSADecrypt2048).(crypto.Decrypter)
	iv, secret, digest := make([]byte, 16), bytes.Repeat([]byte("secret"), 1000), sha256.Sum256(nil)
	forRSA, err := oaeptrial.Encrypt(decrypter.Public().(*rsa.PublicKey), secret[:16])
	if err != nil {
		t.Fatal(err)
	}
	var sealed []byte // by k
	used := func(content []byte) []byte { return append(bytes.Clone(content), make([]byte, 16)...)[:0] }
	for name, c := range map[string]struct {
		function string
		op       func(k appending) ([]byte, error)
		good     func(out []byte) bool
	}{
		"encrypt": {"C_Encrypt", func(k appending) ([]byte, error) { return k.AppendEncrypt(used(secret), iv, secret) },
			func(out []byte) bool { return bytes.Equal(out, sealed) }},
		"decrypt": {"C_Decrypt", func(k appending) ([]byte, error) {
			return k.AppendDecrypt(used(append(secret[1:6000:6000], 1)), iv, sealed)
		},
			func(out []byte) bool { return bytes.Equal(out, secret) }},
		"tag": {"C_Sign", func(appending) ([]byte, error) { return mac.AppendSum(used(secret), nil) },
			func(out []byte) bool { return bytes.Equal(out, u.tag) }},
		"sign": {"C_Sign", func(appending) ([]byte, error) { return signer.Sign(nil, digest[:], crypto.SHA256) },
			func(out []byte) bool { return out != nil }},
		"decrypt with RSA": {"C_Decrypt", func(appending) ([]byte, error) {
			return decrypter.Decrypt(nil, forRSA, &rsa.OAEPOptions{Hash: crypto.SHA1})
		}, func(out []byte) bool { return bytes.Equal(out, secret[:16]) }},
		"wrap": {"C_WrapKey", func(appending) ([]byte, error) { return wrapper.WrapData(secret[:16]) },
			func(out []byte) bool { return len(out) == 24 && !bytes.Equal(out, make([]byte, 24)) }},
		"wrap for a peer": {"C_WrapKey", func(k appending) ([]byte, error) { return s.WrapFor(peerKey(), k.(keystore.Key)) },
			func(out []byte) bool { return len(out) > 0 && !bytes.Equal(out, make([]byte, len(out))) }},
	} {
		for _, times := range []int{1, 0} {
			k, err := generated().(appending), error(nil)
			if sealed, err = k.AppendEncrypt(nil, iv, secret); err != nil {
				t.Fatal(err)
			}
			m.Inject(hsmtest.Fault{Function: c.function, Succeed: true, Times: times})
			out, err := c.op(k)
			failed := out == nil && !errors.Is(err, keystore.ErrBadData) && (errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrLost))
			if times == 1 && (err != nil || !c.good(out)) || times == 0 && !failed {
				t.Errorf("%s, %d times: %d bytes, %v", name, times, len(out), err)
			}
			m.Clear()
		}
	}
}

// TestZerosDecrypt has a peer encrypt zeros: they are data as any other.
func TestZerosDecrypt(t *testing.T) {
	s, _ := newStore(t)
	k, err := s.Generate(keystore.AES128CBC)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	iv, zeros := make([]byte, 16), make([]byte, 100)
	rand.Read(iv)
	sealed, err := k.(keystore.Cipher).Encrypt(iv, zeros)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := k.(keystore.Cipher).Decrypt(iv, sealed); err != nil || !bytes.Equal(out, zeros) {
		t.Errorf("%x, %v", out, err)
	}
}

// TestFaultySignature has a device sign with another key than it says: what its public key
// does not verify is not given out.
func TestFaultySignature(t *testing.T) {
	s, _ := newStore(t)
	digest := sha256.Sum256(nil)
	for a, opts := range map[keystore.Algorithm]crypto.SignerOpts{
		keystore.ECDSAP256: crypto.SHA256, keystore.RSASign2048: crypto.SHA256, keystore.RSAPSS2048: &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256},
	} {
		v, err := s.Create(a.String(), a)
		if err != nil {
			t.Fatal(err)
		}
		var other crypto.PublicKey = peerKey()
		if a == keystore.ECDSAP256 {
			v, err := s.Create("other", a)
			if err != nil {
				t.Fatal(err)
			}
			other = v.Key.(crypto.Signer).Public()
		}
		faulty := hsm.WithPublic(v.Key, other)
		if out, err := faulty.Sign(nil, digest[:], opts); !errors.Is(err, keystore.ErrUnavailable) || out != nil {
			t.Errorf("%v: %d bytes, %v", a, len(out), err)
		}
	}
}
