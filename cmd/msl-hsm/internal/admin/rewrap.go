package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// Rewrap seals the pre-shared keys of entities again, with the versions now used for
// sealing. Each entity is a separate change, so the next run continues an interrupted
// one. It returns the entities whose keys are still sealed by an older version, by name:
// those whose keys never leave the key store, and those whose keys accept only trusted
// wrapping keys, while the current sealing version is not trusted.
func (r *Rotator) Rewrap(ctx context.Context) ([]Left, error) {
	done := 0
	left, err := r.eachOlder(ctx, func(store keystore.Resealer, e state.EntityRecord) error {
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted after %s; run it again to continue: %w", exit.Count(done, "entity", "entities"), ctx.Err())
		}
		done++
		return r.reseal(ctx, store, e)
	})
	if err == nil {
		r.Tell("sealed the pre-shared keys of %s again", exit.Count(done, "entity", "entities"))
	}
	return left, err
}

// Unsealable are the entities that Rewrap would return now. It changes nothing.
func (r *Rotator) Unsealable(ctx context.Context) ([]Left, error) {
	return r.eachOlder(ctx, func(keystore.Resealer, state.EntityRecord) error { return nil })
}

// eachOlder calls f for each entity whose keys are sealed by an older version and can be
// sealed again, and returns the other such entities.
func (r *Rotator) eachOlder(ctx context.Context, f func(keystore.Resealer, state.EntityRecord) error) (left []Left, err error) {
	n, err := FindNeeds(ctx, r.State, r.Store, r.Prefix, r.Keep)
	if err != nil {
		return nil, err
	}
	if n.rotation.Pending() || n.rotation.Step == state.StepUsed {
		return nil, errUnderWay
	}
	store, able := r.Store.(keystore.Resealer)
	for i, e := range n.entities {
		if r.Sealed != nil {
			r.Sealed(i, len(n.entities))
		}
		switch l, now := n.left(e); {
		case now == sealedNow:
		case now == sealedForGood || !able:
			l.Again = l.Again || !able
			left = append(left, l)
		default:
			if err := f(store, e); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(left, func(a, b Left) int { return cmp.Compare(a.Identity, b.Identity) })
	return left, nil
}

// reseal seals the keys of an entity again. An entity changed or removed in the meantime
// is left alone.
func (r *Rotator) reseal(ctx context.Context, store keystore.Resealer, e state.EntityRecord) error {
	var again msl.SealedPSK
	for _, k := range []struct {
		use string
		old []byte
		new *[]byte
	}{
		{msl.PSKEncryption, e.PSK.Encryption, &again.Encryption},
		{msl.PSKMAC, e.PSK.MAC, &again.MAC},
		{msl.PSKWrapping, e.PSK.Wrapping, &again.Wrapping},
	} {
		var err error
		if *k.new, err = store.Reseal(k.old, msl.PSKContext(k.use, e.Identity)); err != nil {
			return fmt.Errorf("keys of %q: %w", e.Identity, err)
		}
	}
	err := r.State.Reseal(ctx, e.Identity, *e.PSK, again)
	if errors.Is(err, state.ErrConflict) || errors.Is(err, state.ErrUnknown) {
		return nil
	}
	return err
}
