package enroll

import (
	"context"
	"fmt"
	"slices"
)

// barred returns which names of devices the protocol above has revoked before this authority
// does.
func (a *Authority) barred(ctx context.Context, ids ...ID) (map[string]bool, error) {
	there := map[string]bool{}
	for _, id := range ids {
		r, _, err := a.find(ctx, id, a.now())
		if err != nil {
			return nil, err
		}
		if err := a.registry.ask(ctx, &r, there); err != nil {
			return nil, err
		}
	}
	return there, nil
}

// ask adds the names of a record that are revoked, unless this authority did that.
func (g registry) ask(ctx context.Context, r *Record, there map[string]bool) error {
	if g.revoked == nil || r.Withdrawn {
		return nil
	}
	for _, name := range r.names() {
		revoked, err := g.revoked(ctx, name)
		if err != nil {
			return fmt.Errorf("enroll: find out whether %s is revoked: %w", name, err)
		}
		there[name] = revoked
	}
	return nil
}

// names are those by which the protocol above may know a device.
func (r *Record) names() (all []string) {
	for _, name := range []string{r.Registered, r.Name} {
		if name != "" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// bar notes what ask found.
func (r *Record) bar(there map[string]bool) {
	for _, name := range r.names() {
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

// leave bars the name that a device is about to give up for another, if it is revoked. That
// is found out once: after a crash it is this authority that revoked it.
func (g registry) leave(ctx context.Context, r *Record) error {
	if r.Registered == "" || r.Registered == r.Name || r.Leaving == r.Registered {
		return nil
	}
	there := map[string]bool{}
	if err := g.ask(ctx, r, there); err != nil {
		return err
	}
	delete(there, r.Name) // which it does not have yet
	r.bar(there)
	r.Leaving = r.Registered
	return nil
}
