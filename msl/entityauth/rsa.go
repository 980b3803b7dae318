package entityauth

import (
	"context"
	"crypto"
	"crypto/rsa"

	"github.com/msl-hsm/msl-hsm/msl"
)

// RSAEntity is an entity with a registered RSA key (MSL wiki, "RSA Public Keys").
type RSAEntity struct {
	Identity string
	KeyID    string // under which the key is registered
	Key      crypto.Signer
}

// Scheme returns RSA.
func (*RSAEntity) Scheme() string { return "RSA" }

// Encrypts reports false.
func (*RSAEntity) Encrypts() bool { return false }

// Authenticates reports true.
func (*RSAEntity) Authenticates() bool { return true }

// Credentials signs with this side's key.
func (r *RSAEntity) Credentials(context.Context) (msl.Credentials, error) {
	if r.Key == nil {
		return msl.Credentials{}, msl.Failure(msl.ErrRSAPrivateKeyNotFound, "own key", nil)
	}
	return msl.Credentials{Identity: r.Identity, AuthData: keyData(r.Identity, r.KeyID), Protector: msl.SigningKey{Key: r.Key}}, nil
}

// RSA is the scheme of registered RSA keys (MSL wiki, "RSA Public Keys").
type RSA struct{ Directory msl.Directory }

// Scheme returns RSA.
func (*RSA) Scheme() string { return "RSA" }

// Open finds the public key of a peer: it must be registered for that identity, under
// that id. A revoked entity is error 4025, one of another scheme 4006, an unknown key
// 4007.
func (r *RSA) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	identity, public, err := registeredKey(ctx, r.Directory, authdata, r.Scheme(), msl.ErrRSAPublicKeyNotFound)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	key, ok := public.(*rsa.PublicKey)
	if !ok {
		return msl.Sender{}, nil, msl.Failure(msl.ErrRSAPublicKeyNotFound, r.Scheme(), nil)
	}
	return msl.Sender{Identity: identity, Opener: msl.VerifyKey{Key: key}, Authenticated: true}, func() {}, nil
}
