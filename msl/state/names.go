package state

import (
	"context"
	"slices"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/msl"
)

// Names are stored in their canonical form ([msl.CanonicalName]). Earlier versions did
// not normalize them, and could therefore hold two names that are now one.

// A roster knows the names in a roll that an earlier version stored in another form. It
// does not change: names are no longer stored in other forms.
type roster struct {
	of  roll
	old map[string][]string // by canonical form
}

// readRoster finds those names.
func readRoster(tx kv.Reader, of roll) (roster, error) {
	r := roster{of: of}
	for _, table := range []string{of.records, of.marks} {
		for p, err := range kv.All(tx, table, nil, nil) {
			if err != nil {
				return r, err
			}
			r.note(string(p.Key))
		}
	}
	return r, nil
}

func (r *roster) note(name string) {
	c := msl.CanonicalName(name)
	if c == name || slices.Contains(r.old[c], name) {
		return
	}
	if r.old == nil {
		r.old = map[string][]string{}
	}
	r.old[c] = append(r.old[c], name)
}

// plain reports whether a name has only its canonical form here.
func (r roster) plain(name string) bool { return len(r.old[msl.CanonicalName(name)]) == 0 }

// find returns the key of a name. If several registered names are now one, apart says
// that this spelling is refused: only the canonical one still works, since the others may
// belong to someone else.
func (r roster) find(tx kv.Reader, name string) (key string, apart bool, err error) {
	c := msl.CanonicalName(name)
	if r.plain(name) {
		return c, false, nil
	}
	all := append([]string{c}, r.old[c]...)
	registered, err := r.in(tx, r.of.records, all)
	if err != nil {
		return "", false, err
	}
	marked, err := r.in(tx, r.of.marks, all)
	if err != nil {
		return "", false, err
	}
	switch {
	case slices.Contains(registered, name):
		return name, name != c && len(registered) > 1, nil
	case slices.Contains(marked, name): // removed or revoked separately
		return name, false, nil
	case len(registered) > 0:
		return registered[0], registered[0] != c && len(registered) > 1, nil
	case len(marked) > 0:
		return marked[0], false, nil
	}
	return c, false, nil
}

// in returns those of the names that are in a table.
func (r roster) in(tx kv.Reader, table string, names []string) (found []string, err error) {
	for _, name := range names {
		b, err := tx.Get(table, []byte(name))
		if err != nil {
			return nil, err
		}
		if b != nil {
			found = append(found, name)
		}
	}
	return found, nil
}

// mark returns the mark of a name, and whether this spelling of it is refused.
func (r roster) mark(tx kv.Reader, name string) (m mark, refused bool, err error) {
	key, apart, err := r.find(tx, name)
	if err != nil {
		return m, false, err
	}
	m, err = r.of.mark(tx, key)
	return m, apart || m.refuses(), err
}

// key returns the key of a name in a table.
func (r roster) key(tx kv.Reader, name string) (string, error) {
	key, _, err := r.find(tx, name)
	return key, err
}

// change applies do to the key of a name.
func (r roster) change(tx kv.Tx, name string, do func(tx kv.Tx, key string) error) error {
	key, err := r.key(tx, name)
	if err != nil {
		return err
	}
	return do(tx, key)
}

// A SpelledApart name is refused: another one differs from it only in its Unicode
// normalization.
type SpelledApart struct {
	Kind string // entity or user
	Name string
}

// Apart returns the names that are refused because they are spelled like others. An
// earlier version registered them; removing one of them ends the conflict.
func (s *Server) Apart(ctx context.Context) (all []SpelledApart, err error) {
	err = s.recall(ctx, "compare names", func(tx kv.Reader) error {
		all = nil
		for _, r := range []roster{s.entities, s.users} {
			for _, names := range r.old {
				for _, name := range names {
					_, apart, err := r.find(tx, name)
					if err != nil {
						return err
					}
					if apart {
						all = append(all, SpelledApart{r.of.what, name})
					}
				}
			}
		}
		return nil
	})
	return all, err
}
