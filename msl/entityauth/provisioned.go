package entityauth

import (
	"context"
	"errors"

	"github.com/msl-hsm/msl-hsm/msl"
)

// ProvisionedEntity is an entity without an identity, which asks for one (MSL wiki,
// "Entity Authentication").
type ProvisionedEntity struct{}

// Scheme returns PROVISIONED.
func (*ProvisionedEntity) Scheme() string { return "PROVISIONED" }

// Encrypts reports false.
func (*ProvisionedEntity) Encrypts() bool { return false }

// Authenticates reports false.
func (*ProvisionedEntity) Authenticates() bool { return false }

// Credentials asks for an identity.
func (*ProvisionedEntity) Credentials(context.Context) (msl.Credentials, error) {
	return msl.Credentials{AuthData: []byte("{}"), Protector: msl.Null{}}, nil
}

// Provisioned is the scheme PROVISIONED: a peer without an identity is given one
// (MSL wiki, "Entity Authentication"). It is useful with a key exchange, whose
// master token then carries the new identity; nothing else tells the peer of it,
// and its own side has no identity at all. Nothing is proven.
type Provisioned struct {
	// Assign makes the identity of a peer, a new one for every message that it
	// is asked for: whoever can reach us can ask, so it must be cheap, and
	// must not keep what is never used.
	Assign func(ctx context.Context) (identity string, err error)
}

// Scheme returns PROVISIONED.
func (*Provisioned) Scheme() string { return "PROVISIONED" }

// Open gives a peer its identity. There is nothing to check.
func (p *Provisioned) Open(ctx context.Context, _ []byte) (msl.Sender, func(), error) {
	if p.Assign == nil {
		return msl.Sender{}, nil, msl.Failure(msl.ErrEntityAuthFactoryNotFound, p.Scheme(), errors.New("no identities to give"))
	}
	identity, err := p.Assign(ctx)
	if err == nil && identity == "" {
		err = errors.New("the identity is empty")
	}
	if err != nil {
		return msl.Sender{}, nil, msl.Failure(msl.ErrInternalException, "assign an identity", err)
	}
	return msl.Sender{Identity: identity, Opener: msl.Null{}}, func() {}, nil
}
