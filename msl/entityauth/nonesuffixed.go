package entityauth

import (
	"context"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// NoneSuffixed is the scheme NONE_SUFFIXED: a claimed identity ROOT.SUFFIX, whose
// root is registered and whose suffix is anything (MSL wiki, "Unauthenticated").
// As with NONE nothing is proven; one root can claim any number of identities.
type NoneSuffixed struct {
	Root, Suffix string        // our own
	Directory    msl.Directory // of roots
	// Anyone lets in roots that the directory does not know.
	Anyone bool
}

// Scheme returns NONE_SUFFIXED.
func (*NoneSuffixed) Scheme() string { return "NONE_SUFFIXED" }

// Encrypts reports false.
func (*NoneSuffixed) Encrypts() bool { return false }

// Authenticates reports false.
func (*NoneSuffixed) Authenticates() bool { return false }

// Local claims our identity.
func (n *NoneSuffixed) Local(context.Context) (msl.Local, error) {
	return msl.Local{
		Identity:  n.Root + "." + n.Suffix,
		AuthData:  twoMembers("root", n.Root, "suffix", n.Suffix),
		Protector: msl.Null{},
	}, nil
}

// Open believes a peer whose root is registered for this scheme: a revoked one is
// 4025, any other 4006. So is an identity that the directory knows as a whole for
// another scheme: it is somebody else's, who can prove it.
func (n *NoneSuffixed) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	f := wire.ParseFields(authdata)
	root, suffix := f.String("root"), f.String("suffix")
	if err := malformed(f); err != nil {
		return msl.Sender{}, nil, err
	}
	entity, err := lookUp(ctx, n.Directory, root, n.Scheme())
	if err != nil {
		return msl.Sender{}, nil, err
	}
	if entity == nil && !n.Anyone {
		return msl.Sender{}, nil, msl.Failure(msl.ErrIncorrectEntityAuthData, n.Scheme(), nil)
	}
	identity := root + "." + suffix
	if err := notForeign(ctx, n.Directory, identity, n.Scheme()); err != nil {
		return msl.Sender{}, nil, err
	}
	return msl.Sender{Identity: identity, Opener: msl.Null{}}, func() {}, nil
}
