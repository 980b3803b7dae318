package state

import (
	"context"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// RevokeEntity marks an identity as revoked by an operator, until
// [Directory.UnrevokeEntity]. It need not be registered: an entity with a certificate may be
// revoked too.
func (d *Directory) RevokeEntity(identity string) error {
	return d.revokeEntity(identity, entityRoll.keepRevoked)
}

// WithdrawEntity is RevokeEntity by an authority of devices, which may take that back by
// [Directory.RestoreEntities]. It leaves a revoked identity as it is.
func (d *Directory) WithdrawEntity(identity string) error {
	return d.revokeEntity(identity, entityRoll.revoke)
}

func (d *Directory) revokeEntity(identity string, do func(kv.Tx, string) error) error {
	if err := checkName("entity", identity); err != nil {
		return err
	}
	return d.changeEntity("revoke", identity, func(tx kv.Tx) error {
		return d.entities.change(tx, identity, do)
	})
}

// RestoreEntities takes back what WithdrawEntity did to identities. If an operator revoked
// one of them after that, none is restored: the error is [ErrRevoked], and kept is that
// one. The caller must know whether an operator had revoked one before.
func (d *Directory) RestoreEntities(identities ...string) (kept string, err error) {
	err = d.update(context.Background(), "restore", func(tx kv.Tx) error {
		for _, kept = range identities {
			if err := d.entities.change(tx, kept, entityRoll.restore); err != nil {
				return err
			}
		}
		return nil
	})
	for _, identity := range identities {
		d.cache.drop(identity)
	}
	return kept, err
}

// UnrevokeEntity lifts a revocation. An entity that was removed stays removed. If its tokens
// count only from a time ahead of all clocks, because one was wrong, they count from now on.
func (d *Directory) UnrevokeEntity(identity string) error {
	return d.changeEntityAt("unrevoke", identity, entityRoll.unrevoke)
}
