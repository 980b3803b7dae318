package etcd

import (
	"context"
	"errors"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// PairOf returns the keys that the state at a prefix claims it was used with. Unlike a
// [Server]'s, the result is not authentic: it explains why a state fails authentication
// with other keys.
func PairOf(ctx context.Context, c Config) (state.Pair, error) {
	db, err := c.place().Open(ctx, etcdkv.OpenExisting)
	if err != nil {
		return nil, err
	}
	p, err := state.PairIn(ctx, db)
	return p, errors.Join(err, db.Close())
}
