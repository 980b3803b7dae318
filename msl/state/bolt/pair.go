package bolt

import (
	"context"
	"errors"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// PairOf returns the keys that the state in a file was used with; the file may be a
// backup that no server uses. The file is not changed.
func PairOf(path string) (p state.Pair, err error) {
	err = onCopy(path, func(copied string) error {
		s, err := openCopy(copied, path)
		if err != nil {
			return err
		}
		p, err = s.Pair(context.Background())
		return errors.Join(err, s.Close())
	})
	return p, err
}

// copyPair makes a copy of a state belong to the original's keys.
func copyPair(ctx context.Context, to kv.Store, from *state.Server) error {
	p, err := from.Pair(ctx)
	if err != nil || len(p) == 0 {
		return err
	}
	return state.NotePair(ctx, to, p)
}
