package entityauth

import (
	"context"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// PSKProfileEntity is one profile of a pre-shared key set, with the identity
// KEYID-PROFILE (MSL wiki, "Pre-shared Keys").
type PSKProfileEntity struct {
	KeyID   string
	Profile string
	Keys    *KeySet
}

// Scheme returns PSK_PROFILE.
func (*PSKProfileEntity) Scheme() string { return "PSK_PROFILE" }

// Encrypts reports true.
func (*PSKProfileEntity) Encrypts() bool { return true }

// Authenticates reports true.
func (*PSKProfileEntity) Authenticates() bool { return true }

// Credentials protects with this side's key set.
func (p *PSKProfileEntity) Credentials(context.Context) (msl.Credentials, error) {
	if p.Keys == nil {
		return msl.Credentials{}, msl.Failure(msl.ErrEntityNotFound, "own pre-shared keys", nil)
	}
	identity := profileIdentity(p.KeyID, p.Profile)
	return msl.Credentials{
		Identity:  identity,
		AuthData:  encodeStrings("pskid", p.KeyID, "profile", p.Profile),
		Protector: msl.SymmetricKey{KeyID: identity, Encryption: p.Keys.Encryption, MAC: p.Keys.MAC},
	}, nil
}

// PSKProfile is the scheme of pre-shared keys shared by several profiles (MSL wiki,
// "Pre-shared Keys"): an entity is one profile of one key set, with the identity
// KEYID-PROFILE.
//
// A key set is registered, revoked and permitted by its own id. Everything after entity
// authentication uses the whole identity: which key exchanges and user schemes are
// permitted, which key set SYMMETRIC_WRAPPED uses, and whether a master token is revoked.
// There, a directory and a state that know the scheme answer for the key set; those of
// package msl/state/bolt do.
type PSKProfile struct {
	// KeySets has the directory, in which the ids of key sets are registered for the
	// scheme PSK_PROFILE, and the store of the key sets. It may be the value that serves
	// the scheme PSK.
	KeySets *PSK
}

// Scheme returns PSK_PROFILE.
func (*PSKProfile) Scheme() string { return "PSK_PROFILE" }

// Open finds the key set of a peer. A revoked key set is error 4025, one of another
// scheme 4006, an unknown one 4005. An identity registered as a whole for another scheme
// is 4006, too: it belongs to another entity.
func (p *PSKProfile) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	f := wire.ParseFields(authdata)
	keyID, profile := f.String("pskid"), f.String("profile")
	if err := malformed(f); err != nil {
		return msl.Sender{}, nil, err
	}
	if p.KeySets == nil {
		return msl.Sender{}, nil, msl.Failure(msl.ErrEntityNotFound, p.Scheme(), nil)
	}
	entity, err := lookUp(ctx, p.KeySets.Directory, keyID, p.Scheme())
	if err != nil {
		return msl.Sender{}, nil, err
	}
	identity := profileIdentity(keyID, profile)
	if err := notForeign(ctx, p.KeySets.Directory, identity, p.Scheme()); err != nil {
		return msl.Sender{}, nil, err
	}
	keys, memory, err := p.KeySets.open(entity)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	return keys.sender(identity, memory)
}

func profileIdentity(keyID, profile string) string { return keyID + "-" + profile }
