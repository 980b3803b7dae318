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

// Provisioned is the scheme PROVISIONED: a peer without an identity is given one (MSL
// wiki, "Entity Authentication"). It is useful only with a key exchange: the master token
// carries the new identity, which the peer does not learn otherwise. Nothing is proven.
type Provisioned struct {
	// Assign returns the identity of a peer, a new one on each call. Anyone who
	// can reach this side can cause a call, so it must be cheap and must not store
	// identities that are never used.
	Assign func(ctx context.Context) (identity string, err error)
}

// Scheme returns PROVISIONED.
func (*Provisioned) Scheme() string { return "PROVISIONED" }

// Open gives a peer its identity. It checks nothing.
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
