package entityauth

import (
	"context"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// NoneSuffixedEntity is an entity that claims the identity ROOT.SUFFIX without proving it
// (MSL wiki, "Unauthenticated").
type NoneSuffixedEntity struct{ Root, Suffix string }

// Scheme returns NONE_SUFFIXED.
func (*NoneSuffixedEntity) Scheme() string { return "NONE_SUFFIXED" }

// Encrypts reports false.
func (*NoneSuffixedEntity) Encrypts() bool { return false }

// Authenticates reports false.
func (*NoneSuffixedEntity) Authenticates() bool { return false }

// Credentials claims this side's identity.
func (n *NoneSuffixedEntity) Credentials(context.Context) (msl.Credentials, error) {
	return msl.Credentials{
		Identity:  n.Root + "." + n.Suffix,
		AuthData:  encodeStrings("root", n.Root, "suffix", n.Suffix),
		Protector: msl.Null{},
	}, nil
}

// NoneSuffixed is the scheme NONE_SUFFIXED: a claimed identity ROOT.SUFFIX, whose
// root is registered and whose suffix is anything (MSL wiki, "Unauthenticated").
// As with NONE nothing is proven; one root can claim any number of identities.
type NoneSuffixed struct {
	Directory msl.Directory // of roots
	// Anyone accepts roots that the directory does not know.
	Anyone bool
}

// Scheme returns NONE_SUFFIXED.
func (*NoneSuffixed) Scheme() string { return "NONE_SUFFIXED" }

// Open accepts a peer whose root is registered for this scheme: a revoked one is error
// 4025, any other 4006. An identity registered as a whole for another scheme is 4006,
// too: it belongs to an entity that can prove it.
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
