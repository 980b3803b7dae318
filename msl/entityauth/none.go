package entityauth

import (
	"context"

	"github.com/msl-hsm/msl-hsm/msl"
)

// None is the scheme NONE: an identity that is claimed and not proven (MSL wiki,
// "Unauthenticated").
type None struct {
	Identity  string // our own
	Directory msl.Directory
	// Anyone lets in identities that the directory does not know.
	Anyone bool
}

// Scheme returns NONE.
func (*None) Scheme() string { return "NONE" }

// Encrypts reports false.
func (*None) Encrypts() bool { return false }

// Authenticates reports false.
func (*None) Authenticates() bool { return false }

// Local claims our identity.
func (n *None) Local(context.Context) (msl.Local, error) {
	return msl.Local{Identity: n.Identity, AuthData: identityData(n.Identity), Protector: msl.Null{}}, nil
}

// Open believes a peer that is registered for this scheme: a revoked one is
// 4025, any other 4006.
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
