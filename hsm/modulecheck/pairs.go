package modulecheck

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
)

// A pair is a key pair in the token, made by one program for another to use.
type pair struct {
	Label     string
	Algorithm keystore.Algorithm
	Public    []byte // SubjectPublicKeyInfo
	Signature []byte // of its maker, over digest; of a pair that signs
}

// pairKinds are the algorithms that both programs have.
func pairKinds() []keystore.Algorithm {
	return []keystore.Algorithm{keystore.RSASign2048, keystore.RSADecrypt2048, keystore.ECDSAP256, keystore.ECDSAP384}
}

// These are signed and encrypted.
func digest() []byte         { d := sha256.Sum256([]byte("signed")); return d[:] }
func secret() []byte         { return []byte("what is decrypted") }
func oaep() *rsa.OAEPOptions { return &rsa.OAEPOptions{Hash: crypto.SHA1} }

// describe is a pair with what its maker signs.
func describe(label string, a keystore.Algorithm, k any) (pair, error) {
	owner, ok := k.(interface{ Public() crypto.PublicKey })
	if !ok {
		return pair{}, fmt.Errorf("modulecheck: %T has no public half: %w", k, keystore.ErrWrongKey)
	}
	public, err := x509.MarshalPKIXPublicKey(owner.Public())
	if err != nil || a == keystore.RSADecrypt2048 {
		return pair{Label: label, Algorithm: a, Public: public}, err
	}
	signature, err := sign(k)
	return pair{Label: label, Algorithm: a, Public: public, Signature: signature}, err
}

func sign(k any) ([]byte, error) {
	signer, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("modulecheck: %T does not sign: %w", k, keystore.ErrWrongKey)
	}
	return signer.Sign(rand.Reader, digest(), crypto.SHA256)
}

// use asks of a key that another program made: that it is that one, that the signature of
// its maker verifies and so does its own, or that it decrypts.
func (p pair) use(k any) error {
	owner, ok := k.(interface{ Public() crypto.PublicKey })
	public, err := x509.ParsePKIXPublicKey(p.Public)
	if err != nil {
		return err
	}
	if !ok || !keystore.SamePublic(public, owner.Public()) {
		return errors.New("another key was found than the one that was made")
	}
	if p.Algorithm == keystore.RSADecrypt2048 {
		return decrypts(k, public)
	}
	if err := verify(public, p.Signature); err != nil {
		return fmt.Errorf("the signature of the program that made the key: %w", err)
	}
	signature, err := sign(k)
	if err != nil {
		return err
	}
	return verify(public, signature)
}

func decrypts(k any, public crypto.PublicKey) error {
	d, ok := k.(crypto.Decrypter)
	p, isRSA := public.(*rsa.PublicKey)
	if !ok || !isRSA {
		return fmt.Errorf("modulecheck: %T does not decrypt: %w", k, keystore.ErrWrongKey)
	}
	ciphertext, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, p, secret(), nil)
	if err != nil {
		return err
	}
	plain, err := d.Decrypt(rand.Reader, ciphertext, oaep())
	if err == nil && string(plain) != string(secret()) {
		err = errors.New("it decrypts to something else")
	}
	return err
}

func verify(public crypto.PublicKey, signature []byte) error {
	switch p := public.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(p, crypto.SHA256, digest(), signature)
	case *ecdsa.PublicKey:
		if ecdsa.VerifyASN1(p, digest(), signature) {
			return nil
		}
	}
	return errors.New("the signature does not verify")
}

// makePairs makes a pair of each kind, for the other program.
func (s *step) makePairs() error {
	return s.with(func(store *hsm.Store) error {
		for _, a := range pairKinds() {
			name := secondOpinion + "/made/" + a.String()
			s.write(event{Begins: name})
			label := keystoretest.Prefix + "made-" + a.String()
			v, err := store.Create(label, a)
			if err != nil {
				s.of(name, err)
				continue
			}
			p, err := describe(label, a, v.Key)
			if s.of(name, err); err == nil {
				s.write(event{Pairs: []pair{p}})
			}
		}
		return nil
	})
}

// ours uses the pairs of the other program.
func (s *step) ours() error {
	return s.with(func(store *hsm.Store) error {
		for _, p := range s.Pairs {
			name := secondOpinion + "/used-by-msl-hsm/" + p.Algorithm.String()
			s.write(event{Begins: name})
			s.of(name, usePair(store, p))
		}
		return nil
	})
}

func usePair(store *hsm.Store, p pair) error {
	versions, err := store.Lookup(p.Label)
	if err != nil {
		return err
	}
	if got := versions[0].Key.Algorithm(); got != p.Algorithm {
		return fmt.Errorf("a pair of %v is taken for %v", p.Algorithm, got)
	}
	return p.use(versions[0].Key)
}
