package keystoretest

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/wycheproof"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A PairProvisioner is a store that takes private keys which this process has seen, or
// that a test taught to. It is asked the vectors that come with a private key. A key that
// it does not take is errors.ErrUnsupported.
type PairProvisioner interface {
	keystore.Admin
	ProvisionKeyPair(label string, a keystore.Algorithm, key crypto.Signer) (keystore.Version, error)
}

// A pair is a provisioned key, or why there is none.
type pair struct {
	key keystore.Key
	why wycheproof.Verdict
}

// provisioned provisions the private key of a group until the test ends.
func (v *vectors) provisioned(a keystore.Algorithm, g wycheproof.Group) (keystore.Key, wycheproof.Verdict) {
	p, ok := v.pairs[string(g.Private)]
	if !ok {
		p.key, p.why = v.provision(a, g)
		v.pairs[string(g.Private)] = p
	}
	return p.key, p.why
}

func (v *vectors) provision(a keystore.Algorithm, g wycheproof.Group) (none keystore.Key, why wycheproof.Verdict) {
	store, ok := v.store.(PairProvisioner)
	if !ok {
		return nil, wycheproof.NotAsked("the store takes no private keys")
	}
	private, err := x509.ParsePKCS8PrivateKey(g.Private)
	if err != nil {
		v.t.Fatal(err)
	}
	label := fmt.Sprintf("keystoretest-vectors-%v-%d", a, len(v.pairs))
	made, err := store.ProvisionKeyPair(label, a, private.(crypto.Signer))
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, wycheproof.NotAsked("the store takes no such %v key", a)
	}
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() {
		if err := store.Destroy(label, 0); err != nil {
			v.t.Error(err)
		}
	})
	return made.Key, why
}

func (v *vectors) oaepDecrypt(g wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict {
	return v.unlabelled(x, func(x wycheproof.Vector) wycheproof.Verdict {
		return v.decrypt(g, x, &rsa.OAEPOptions{Hash: crypto.SHA1})
	})
}

// unlabelled asks a store that knows no labels: what was encrypted with one does not open.
func (v *vectors) unlabelled(x wycheproof.Vector, ask func(wycheproof.Vector) wycheproof.Verdict) wycheproof.Verdict {
	v.t.Helper()
	if len(x.Label) == 0 {
		return ask(x)
	}
	d := ask(forged(x))
	switch d {
	case wycheproof.Accepted(true):
		v.t.Errorf("%v: opened without its label", x)
	case wycheproof.Accepted(false):
		return wycheproof.NotAsked("with a label (refused without it)")
	}
	return d
}

func (v *vectors) pkcs1Decrypt(g wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict {
	//lint:ignore SA1019 it is what is asked
	return v.decrypt(g, x, &rsa.PKCS1v15DecryptOptions{})
}

func (v *vectors) decrypt(g wycheproof.Group, x wycheproof.Vector, opts crypto.DecrypterOpts) wycheproof.Verdict {
	k, why := v.provisioned(keystore.RSADecrypt2048, g)
	if k == nil {
		return why
	}
	plain, err := k.(crypto.Decrypter).Decrypt(nil, x.Ciphertext, opts)
	if errors.Is(err, errors.ErrUnsupported) {
		return wycheproof.NotAsked("the store does not decrypt that")
	}
	if !v.opened(x, x.Ciphertext, err) {
		return wycheproof.Accepted(false)
	}
	v.same("plaintext", x, plain, x.Message)
	return wycheproof.Accepted(true)
}

func (v *vectors) oaepUnwrap(g wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict {
	k, why := v.provisioned(keystore.RSAUnwrap2048, g)
	if k == nil {
		return why
	}
	return v.unlabelled(x, func(x wycheproof.Vector) wycheproof.Verdict { return v.unwrapped(k.(keystore.Unwrapper), x) })
}

// pkcs1Sign asks for the signature of the vector, which is the only one.
func (v *vectors) pkcs1Sign(g wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict {
	hash := map[string]crypto.Hash{"SHA-1": crypto.SHA1, "SHA-224": crypto.SHA224, "SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}[g.Hash]
	digest := hash.New()
	digest.Write(x.Message)
	k, why := v.provisioned(keystore.RSASign2048, g)
	if k == nil {
		return why
	}
	signature, err := k.(crypto.Signer).Sign(nil, digest.Sum(nil), hash)
	if hash != crypto.SHA256 {
		if is(v.t, x.String(), err, errors.ErrUnsupported); err == nil {
			return wycheproof.Accepted(true)
		}
		return wycheproof.NotAsked("key stores sign no %v with RSA", hash)
	}
	if err != nil && !v.lacking(err) {
		v.t.Errorf("%v: %v", x, err)
	}
	return wycheproof.Accepted(bytes.Equal(signature, x.Signature))
}
