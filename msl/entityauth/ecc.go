package entityauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"

	"github.com/msl-hsm/msl-hsm/msl"
)

// ECCEntity is an entity with a registered elliptic curve key, as described for [ECC]
// (MSL wiki, "ECC Public Keys").
type ECCEntity struct {
	Identity string
	KeyID    string // under which the key is registered
	Key      crypto.Signer
}

// Scheme returns ECC.
func (*ECCEntity) Scheme() string { return "ECC" }

// Encrypts reports false.
func (*ECCEntity) Encrypts() bool { return false }

// Authenticates reports true.
func (*ECCEntity) Authenticates() bool { return true }

// Credentials signs with this side's key.
func (c *ECCEntity) Credentials(context.Context) (msl.Credentials, error) {
	if c.Key == nil {
		return msl.Credentials{}, msl.Failure(msl.ErrECCPrivateKeyNotFound, "own key", nil)
	}
	if _, ok := onKnownCurve(c.Key.Public()); !ok {
		return msl.Credentials{}, msl.Failure(msl.ErrECCPrivateKeyNotFound, "own key", errors.New("not a key on P-256 or P-384"))
	}
	return msl.Credentials{Identity: c.Identity, AuthData: keyData(c.Identity, c.KeyID), Protector: msl.SigningKey{Key: c.Key}}, nil
}

// ECC is the scheme of registered elliptic curve keys (MSL wiki, "ECC Public
// Keys"): ECDSA over P-256 or P-384 with SHA-256, signatures in ASN.1 DER (RFC
// 3279 section 2.2.3).
type ECC struct{ Directory msl.Directory }

// Scheme returns ECC.
func (*ECC) Scheme() string { return "ECC" }

// Open finds the public key of a peer: it must be registered for that identity, under
// that id. A revoked entity is error 4025, one of another scheme 4006, an unknown key
// 4037.
func (c *ECC) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	identity, public, err := registeredKey(ctx, c.Directory, authdata, c.Scheme(), msl.ErrECCPublicKeyNotFound)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	key, ok := onKnownCurve(public)
	if !ok {
		return msl.Sender{}, nil, msl.Failure(msl.ErrECCPublicKeyNotFound, c.Scheme(), errors.New("not a key on P-256 or P-384"))
	}
	return msl.Sender{Identity: identity, Opener: msl.VerifyKey{Key: key}, Authenticated: true}, func() {}, nil
}

func onKnownCurve(public crypto.PublicKey) (*ecdsa.PublicKey, bool) {
	key, ok := public.(*ecdsa.PublicKey)
	return key, ok && (key.Curve == elliptic.P256() || key.Curve == elliptic.P384())
}
