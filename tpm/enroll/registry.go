package enroll

import (
	"context"
	"errors"
	"fmt"
)

// A registry is the protocol above, which knows devices by their names.
type registry struct {
	register, withdraw func(context.Context, Identity) error // nil does nothing
}

// enter makes the device of a record known, and unknown under a name of before.
func (g registry) enter(ctx context.Context, r *Record) error {
	id, err := r.Identity()
	if err != nil {
		return err
	}
	if g.register != nil {
		if err := g.register(ctx, id); err != nil {
			return fmt.Errorf("enroll: register %s: %w", r.Name, err)
		}
	}
	if r.Registered != r.Name {
		was, err := r.registered()
		if err != nil {
			return err
		}
		if err := g.remove(ctx, was); err != nil {
			return err
		}
	}
	r.Registered, r.Withdrawn = r.Name, false
	return nil
}

func (g registry) remove(ctx context.Context, id Identity) error {
	if g.withdraw == nil || len(id.Keys)+len(id.Former) == 0 {
		return nil
	}
	if err := g.withdraw(ctx, id); err != nil {
		return fmt.Errorf("enroll: withdrawing %s failed: do it again: %w", id.Name, err)
	}
	return nil
}

// end removes identities, and joins the errors of that to the one that there was.
func (g registry) end(ctx context.Context, ended []Identity, err error) error {
	for _, id := range ended {
		err = errors.Join(err, g.remove(ctx, id))
	}
	return err
}
