package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// Rewrap seals the pre-shared keys of entities again, with the versions that seal now.
// Each entity is a change of its own, so a run that was cut off is gone on with by the
// next. It returns the entities whose keys an older version still seals, because the key
// store lets no key out that was sealed: they have to be registered again.
func (r *Rotator) Rewrap(ctx context.Context) (again []string, err error) {
	n, err := FindNeeds(ctx, r.State, r.Store, r.Prefix, r.Keep)
	if err != nil {
		return nil, err
	}
	if n.rotation.Pending() || n.rotation.Step == state.StepUsed {
		return nil, errUnderWay
	}
	used := n.inUse(n.together(keystore.RoleSealMAC.Label(r.Prefix)))
	store, able := r.Store.(keystore.Resealer)
	done := 0
	for i, e := range n.entities {
		if r.Sealed != nil {
			r.Sealed(i, len(n.entities))
		}
		switch {
		case e.PSK == nil || sealedBy(e.PSK, used):
		case !able:
			again = append(again, e.Identity)
		case ctx.Err() != nil:
			return nil, fmt.Errorf("interrupted after %d entities; run it again to go on: %w", done, ctx.Err())
		default:
			if err := r.reseal(ctx, store, e); err != nil {
				return nil, err
			}
			done++
		}
	}
	r.Tell("sealed the pre-shared keys of %d entities again", done)
	return again, nil
}

// sealedBy reports whether a version seals all of a key set.
func sealedBy(p *msl.SealedPSK, version uint32) bool {
	return versionOf(p.Encryption) == version && versionOf(p.MAC) == version && versionOf(p.Wrapping) == version
}

// reseal seals the keys of an entity again. One that was changed or removed meanwhile is
// left as it is.
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
