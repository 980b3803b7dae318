package entityauth

import (
	"context"

	"github.com/msl-hsm/msl-hsm/msl"
)

// NoneEntity is an entity that claims an identity without proving it (MSL wiki,
// "Unauthenticated").
type NoneEntity struct{ Identity string }

// Scheme returns NONE.
func (*NoneEntity) Scheme() string { return "NONE" }

// Encrypts reports false.
func (*NoneEntity) Encrypts() bool { return false }

// Authenticates reports false.
func (*NoneEntity) Authenticates() bool { return false }

// Credentials claims this side's identity.
func (n *NoneEntity) Credentials(context.Context) (msl.Credentials, error) {
	return msl.Credentials{Identity: n.Identity, AuthData: encodeStrings("identity", n.Identity), Protector: msl.Null{}}, nil
}

// None is the scheme NONE: an identity that is claimed but not proven (MSL wiki,
// "Unauthenticated").
type None struct {
	Directory msl.Directory
	// Anyone accepts identities that the directory does not know.
	Anyone bool
}

// Scheme returns NONE.
func (*None) Scheme() string { return "NONE" }

// Open accepts a peer that is registered for this scheme: a revoked one is error 4025,
// any other 4006.
func (n *None) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	identity, err := identityOf(authdata)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	entity, err := lookUp(ctx, n.Directory, identity, n.Scheme())
	if err != nil {
		return msl.Sender{}, nil, err
	}
	if entity == nil && !n.Anyone {
		return msl.Sender{}, nil, msl.Failure(msl.ErrIncorrectEntityAuthData, n.Scheme(), nil)
	}
	return msl.Sender{Identity: identity, Opener: msl.Null{}}, func() {}, nil
}
