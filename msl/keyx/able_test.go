package keyx_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// A tokenPair is an RSA pair as a PKCS #11 token has it: it decrypts only OAEP.
type tokenPair struct {
	keyx.DecryptingPair
	asked *int // to decrypt something
}

func (p tokenPair) Decrypt(r io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	if _, ok := opts.(*rsa.OAEPOptions); !ok {
		return nil, fmt.Errorf("decrypt otherwise: %w", errors.ErrUnsupported)
	}
	if len(ciphertext) > 0 {
		*p.asked++
	}
	return p.DecryptingPair.Decrypt(r, ciphertext, opts)
}

// A barred store does what it has to, and imports nothing.
type barred struct{ keystore.Store }

// A wrapOnly key does not unwrap.
type wrapOnly struct{ keystore.Key }

// An ecPair is not RSA.
type ecPair struct{ keystore.Key }

var ecKey, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)

func (ecPair) Public() crypto.PublicKey { return ecKey.Public() }
func (ecPair) Decrypt(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) {
	return nil, errors.New("never")
}
func (ecPair) Unwrap(keystore.Algorithm, []byte) (keystore.Key, error) {
	return nil, errors.New("never")
}

// TestOfferAbility refuses offers that could not be finished, before they are sent,
// and asks no device for that.
func TestOfferAbility(t *testing.T) {
	store := soft.New()
	defer store.Close()
	made, err := store.Generate(keystore.RSADecrypt2048)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	pair := tokenPair{made.(keyx.DecryptingPair), &asked}
	closed, err := store.Generate(keystore.RSADecrypt2048)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	groups := []keyx.DHGroup{keyx.DHGroups()[0]}
	able := map[string]msl.Offerer{
		"JWE_RSA":   &keyx.AsymmetricJOSE{Store: store, KeyPair: pair},
		"JWK_RSA":   &keyx.AsymmetricJOSE{Mechanism: keyx.JWKRSA, Store: store, KeyPair: pair},
		"JWK_RSAES": &keyx.AsymmetricJOSE{Mechanism: keyx.JWKRSAES, Store: store, KeyPair: made.(keyx.DecryptingPair)},
		"decrypted": &keyx.AsymmetricDecrypted{Sessions: store, KeyPair: pair},
		"DH":        &keyx.DiffieHellman{Store: store, Groups: groups},
	}
	unable := map[string]msl.Offerer{
		"JWK_RSAES of a token":          &keyx.AsymmetricJOSE{Mechanism: keyx.JWKRSAES, Store: store, KeyPair: pair},
		"a mechanism that nobody knows": &keyx.AsymmetricJOSE{Mechanism: "JWK_DSA", Store: store, KeyPair: pair},
		"JOSE without import":           &keyx.AsymmetricJOSE{Store: barred{store}, KeyPair: pair},
		"JOSE with EC":                  &keyx.AsymmetricJOSE{Store: store, KeyPair: ecPair{}},
		"a closed pair":                 &keyx.AsymmetricJOSE{Store: store, KeyPair: closed.(keyx.DecryptingPair)},
		"decrypted without import":      &keyx.AsymmetricDecrypted{Sessions: barred{store}, KeyPair: pair},
		"wrapped with EC":               &keyx.AsymmetricWrapped{Store: store, KeyPair: ecPair{}},
		"a PSK that does not unwrap":    &keyx.SymmetricOfferer{Keys: entityauth.NewKeySet(nil, nil, wrapOnly{})},
		"DH without import":             &keyx.DiffieHellman{Store: barred{store}, Groups: groups},
		"ladder without import":         &keyx.LadderOfferer{Form: keyx.JWELadder, Store: barred{store}, Own: nobody{}},
	}
	for name, x := range able {
		o, err := x.Offer(context.Background(), msl.Requester{Identity: "x"})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		o.Close()
	}
	for name, x := range unable {
		if _, err := x.Offer(context.Background(), msl.Requester{Identity: "x"}); err == nil {
			t.Errorf("%s: offered", name)
		}
	}
	if asked > 0 {
		t.Error("a device was asked to decrypt")
	}
}

type nobody struct{ keystore.Key }

func (nobody) Reveal([]byte) ([]byte, error) { return nil, errors.New("never") }
