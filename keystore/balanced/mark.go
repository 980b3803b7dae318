package balanced

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A mark is how the same version of a key is known on another token.
type mark struct {
	number    uint32
	algorithm keystore.Algorithm
	public    string // of a pair, in PKIX form
	value     string // what a secret key computes of the challenge
	key       keystore.Key
}

func (m mark) sameVersion(other mark) bool { return m.number == other.number }

func (m mark) same(other mark) bool {
	return m.algorithm == other.algorithm && m.public == other.public && m.value == other.value
}

// marksOf looks up a key on a token, and has each version make its mark. A label that the
// token does not have has none.
func (pr *proof) marksOf(p *place, label string) (marks []mark, err error) {
	versions, err := p.opened().Lookup(label)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, v := range versions {
		m, err := pr.markOf(label, v)
		if err != nil {
			return nil, err
		}
		marks = append(marks, m)
	}
	return marks, nil
}

// markOf has a version of a key make its mark.
func (pr *proof) markOf(label string, v keystore.Version) (m mark, err error) {
	m = mark{number: v.Number, algorithm: v.Key.Algorithm(), key: v.Key}
	if m.public, err = publicOf(v.Key); err == nil {
		m.value, err = valueOf(v.Key, pr.challenge)
	}
	if err != nil {
		err = fmt.Errorf("balanced: key %q version %d cannot be proven: %w", label, v.Number, err)
	}
	return m, err
}

func publicOf(k keystore.Key) (string, error) {
	pair, ok := k.(interface{ Public() crypto.PublicKey })
	if !ok {
		return "", nil
	}
	der, err := x509.MarshalPKIXPublicKey(pair.Public())
	return string(der), err
}

// valueOf is what a secret key computes of the challenge. A private key has to show that it
// belongs to its public one, and has no value. Of a secret key that only unwraps nothing
// can be asked: there is no data that it unwraps.
func valueOf(k keystore.Key, challenge []byte) (string, error) {
	out, err := keystore.Computed(k, challenge)
	switch k := k.(type) {
	case crypto.Signer:
		err = signs(k, challenge)
	case crypto.Decrypter:
		err = decrypts(k, challenge)
	case privateUnwrapper:
		err = unwraps(k, challenge)
	}
	sum := sha256.Sum256(out) // a tag of its own is worth something; this is not
	return string(sum[:]), err
}

// A privateUnwrapper is the private half of a pair that unwraps.
type privateUnwrapper interface {
	keystore.Unwrapper
	Public() crypto.PublicKey
}

var errHalves = fmt.Errorf("balanced: the private key does not belong to the public one: %w", ErrDifferent)

func signs(k crypto.Signer, challenge []byte) error {
	hash := sha256.Sum256(challenge)
	var opts crypto.SignerOpts = crypto.SHA256
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	own, _ := k.(keystore.Key)
	isPSS := own != nil && own.Algorithm().PSS()
	if isPSS {
		opts = pss
	}
	signature, err := k.Sign(rand.Reader, hash[:], opts)
	if err != nil {
		return err
	}
	good := false
	switch public := k.Public().(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(public, hash[:], signature)
	case *rsa.PublicKey:
		if isPSS {
			good = rsa.VerifyPSS(public, crypto.SHA256, hash[:], signature, pss) == nil
		} else {
			good = rsa.VerifyPKCS1v15(public, crypto.SHA256, hash[:], signature) == nil
		}
	}
	if !good {
		return errHalves
	}
	return nil
}

func decrypts(k crypto.Decrypter, challenge []byte) error {
	public, ok := k.Public().(*rsa.PublicKey)
	if !ok {
		return nil
	}
	sent, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public, challenge, nil)
	if err != nil {
		return err
	}
	got, err := k.Decrypt(nil, sent, &rsa.OAEPOptions{Hash: crypto.SHA1})
	if errors.Is(err, keystore.ErrBadData) || err == nil && !bytes.Equal(got, challenge) {
		return errHalves
	}
	return err
}

func unwraps(k privateUnwrapper, challenge []byte) error {
	public, ok := k.Public().(*rsa.PublicKey)
	if !ok {
		return nil
	}
	raw := random(32)
	defer clear(raw)
	sent, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public, raw, nil)
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, raw)
	mac.Write(challenge)
	got, err := k.Unwrap(keystore.HMACSHA256, sent)
	if errors.Is(err, keystore.ErrBadData) {
		return errHalves
	}
	if err != nil {
		return err
	}
	defer got.Close()
	tag, err := got.(keystore.MAC).Sum(challenge)
	if err == nil && !hmac.Equal(tag, mac.Sum(nil)) {
		return errHalves
	}
	return err
}
