package enroll

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A registry is the protocol above, which identifies devices by their names.
type registry struct {
	register, withdraw func(context.Context, Identity) error       // nil does nothing
	revoked            func(context.Context, string) (bool, error) // nil says that no name is
}

// enter registers the device of a record, and withdraws it under its former name.
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
	r.rename()
	return nil
}

// restore registers what a record says, or withdraws it.
func (g registry) restore(ctx context.Context, r *Record) error {
	if r.ended() {
		known, err := r.known()
		if err != nil {
			return err
		}
		return g.end(ctx, known, nil)
	}
	id, err := r.registered()
	if err != nil || g.register == nil || len(id.Keys) == 0 {
		return err
	}
	if err := g.register(ctx, id); err != nil {
		return fmt.Errorf("enroll: register %s: %w", id.Name, err)
	}
	return nil
}

// ended reports whether an operator took back what was registered.
func (r *Record) ended() bool {
	if r.State == Revoked || r.State == Rejected || r.State != Enrolled && r.Withdrawn {
		return true
	}
	return slices.ContainsFunc(r.Keys, func(k Key) bool { return k.Current && k.Revoked != nil })
}

// remove withdraws an identity, if it has keys.
func (g registry) remove(ctx context.Context, id Identity) error {
	if g.withdraw == nil || len(id.Keys)+len(id.Former) == 0 {
		return nil
	}
	if err := g.withdraw(ctx, id); err != nil {
		return fmt.Errorf("enroll: withdrawing %s failed: try again: %w", id.Name, err)
	}
	return nil
}

// end removes identities, and joins errors to err.
func (g registry) end(ctx context.Context, ended []Identity, err error) error {
	for _, id := range ended {
		err = errors.Join(err, g.remove(ctx, id))
	}
	return err
}
