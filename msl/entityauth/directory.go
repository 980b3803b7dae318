package entityauth

import (
	"context"
	"errors"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// lookUp finds an entity that may use scheme, or nil; an empty scheme means any. It
// checks in the protocol's order: revocation, then permission.
func lookUp(ctx context.Context, d msl.Directory, identity, scheme string) (*msl.Entity, error) {
	if d == nil {
		return nil, nil
	}
	entity, err := d.Entity(ctx, identity)
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, msl.Failure(msl.ErrInternalException, "entity directory", err)
	case entity.Revoked:
		return nil, msl.Failure(msl.ErrEntityRevoked, scheme, nil)
	case scheme != "" && entity.Scheme != scheme:
		return nil, msl.Failure(msl.ErrIncorrectEntityAuthData, scheme, nil)
	}
	return entity, nil
}

// notForeign refuses an identity composed of parts if it is registered as a whole for
// another scheme. The protocol looks only at one part; without this check, anyone with
// that part could impersonate an entity whose name begins with it.
func notForeign(ctx context.Context, d msl.Directory, identity, scheme string) error {
	if d == nil {
		return nil
	}
	entity, err := d.Entity(ctx, identity)
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		return nil
	case err != nil:
		return msl.Failure(msl.ErrInternalException, "entity directory", err)
	case entity.Scheme != scheme:
		return msl.Failure(msl.ErrIncorrectEntityAuthData, scheme, nil)
	}
	return nil
}
