package enroll

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// barred returns which names of devices the protocol above had revoked before this
// authority did.
func (l *ledger) barred(ctx context.Context, g registry, ids ...ID) (map[string]bool, error) {
	there := map[string]bool{}
	for _, id := range ids {
		r, _, err := l.find(ctx, id, time.Time{})
		if err != nil {
			return nil, err
		}
		if err := g.ask(ctx, &r, there); err != nil {
			return nil, err
		}
	}
	return there, nil
}

// ask adds the names of a record that are revoked, unless this authority revoked them.
func (g registry) ask(ctx context.Context, r *Record, there map[string]bool) error {
	if g.revoked == nil || r.Withdrawn {
		return nil
	}
	for _, name := range namesOfDevice(r) {
		revoked, err := g.revoked(ctx, name)
		if err != nil {
			return fmt.Errorf("enroll: find out whether %s is revoked: %w", name, err)
		}
		there[name] = revoked
	}
	return nil
}

// namesOfDevice are the names by which the protocol above may know a device.
func namesOfDevice(r *Record) (all []string) {
	for _, name := range []string{r.Registered, r.Name} {
		if name != "" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// bar records what ask found.
func bar(r *Record, there map[string]bool) {
	for _, name := range namesOfDevice(r) {
		revoked, asked := there[name]
		if !asked || r.Withdrawn {
			continue
		}
		r.Barred = slices.DeleteFunc(slices.Clone(r.Barred), func(b string) bool { return b == name })
		if revoked {
			r.Barred = append(r.Barred, name)
		}
	}
}

// leave bars the name that a device is about to give up for another, if it is revoked.
// This is checked once: after a crash, it was this authority that revoked the name.
func (g registry) leave(ctx context.Context, r *Record) error {
	if r.Registered == "" || r.Registered == r.Name || r.Leaving == r.Registered {
		return nil
	}
	there := map[string]bool{}
	if err := g.ask(ctx, r, there); err != nil {
		return err
	}
	delete(there, r.Name) // which it does not have yet
	bar(r, there)
	r.Leaving = r.Registered
	return nil
}
