package entityauth

import (
	"context"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// PSKProfile is the scheme of pre-shared keys that several profiles share (MSL
// wiki, "Pre-shared Keys"): an entity is one profile of one key set, with the
// identity KEYID-PROFILE.
//
// A key set is registered, revoked and permitted by its own id. Everything after
// the entity authentication goes by the whole identity: which key exchanges and
// user schemes are permitted, which key set SYMMETRIC_WRAPPED uses, and whether a
// master token is revoked. A directory and a state that know the scheme answer for
// the key set there; those of package msl/state/bolt do.
type PSKProfile struct {
	// KeyID, Profile and Keys are our own.
	KeyID   string
	Profile string
	Keys    *KeySet

	// Peers has the directory, where the ids of key sets are registered for
	// the scheme PSK_PROFILE, and the store of the peers' key sets. It may be
	// the value that serves the scheme PSK.
	Peers *PSK
}

// Scheme returns PSK_PROFILE.
func (*PSKProfile) Scheme() string { return "PSK_PROFILE" }

// Encrypts reports true.
func (*PSKProfile) Encrypts() bool { return true }

// Authenticates reports true.
func (*PSKProfile) Authenticates() bool { return true }

// Local protects with our own key set.
func (p *PSKProfile) Local(context.Context) (msl.Local, error) {
	if p.Keys == nil {
		return msl.Local{}, msl.Failure(msl.ErrEntityNotFound, "own pre-shared keys", nil)
	}
	identity := profileIdentity(p.KeyID, p.Profile)
	return msl.Local{
		Identity:  identity,
		AuthData:  twoMembers("pskid", p.KeyID, "profile", p.Profile),
		Protector: msl.SymmetricKey{KeyID: identity, Encryption: p.Keys.Encryption, MAC: p.Keys.MAC},
	}, nil
}

// Open finds the key set of a peer. A revoked key set is 4025, one of another
// scheme 4006, an unknown one 4005. An identity that the directory knows as a
// whole for another scheme is 4006 too: it is somebody else's.
func (p *PSKProfile) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	f := wire.ParseFields(authdata)
	keyID, profile := f.String("pskid"), f.String("profile")
	if err := malformed(f); err != nil {
		return msl.Sender{}, nil, err
	}
	if p.Peers == nil {
		return msl.Sender{}, nil, msl.Failure(msl.ErrEntityNotFound, p.Scheme(), nil)
	}
	entity, err := lookUp(ctx, p.Peers.Directory, keyID, p.Scheme())
	if err != nil {
		return msl.Sender{}, nil, err
	}
	identity := profileIdentity(keyID, profile)
	if err := notForeign(ctx, p.Peers.Directory, identity, p.Scheme()); err != nil {
		return msl.Sender{}, nil, err
	}
	keys, proven, err := p.Peers.open(entity)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	return keys.sender(identity, proven)
}

func profileIdentity(keyID, profile string) string { return keyID + "-" + profile }

// twoMembers is the authdata of schemes that give two strings.
func twoMembers(name1, value1, name2, value2 string) []byte {
	e := wire.NewEncoder(64 + len(value1) + len(value2))
	e.Begin()
	e.String(name1, value1)
	e.String(name2, value2)
	e.End()
	return e.Encoded()
}
