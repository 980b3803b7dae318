package balanced

import (
	"errors"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// dropDestroyed ends the use of versions that no token has any more, such as those that
// another process destroyed: who lacks them has the same keys as the others. It reports
// whether there was one.
func (s *tokens) dropDestroyed(p *place) (dropped bool) {
	for _, label := range s.proof.labels() {
		r, _ := s.proof.known(label)
		for _, m := range r.marks {
			if s.destroyed(p, label, m.number) {
				s.proof.forget(label, m.number)
				dropped = true
			}
		}
	}
	return dropped
}

// destroyed reports whether a token that is examined lacks a version, and so does another,
// while none has it. A token that does not answer proves nothing.
func (s *tokens) destroyed(p *place, label string, number uint32) bool {
	if there, err := holds(p, label, number); there || err != nil {
		return false
	}
	lack := 0
	for _, other := range s.places {
		if other == p || other.opened() == nil {
			continue
		}
		there, err := bounded(other, s.limit, func() (bool, error) { return holds(other, label, number) })
		switch {
		case there:
			return false
		case err == nil:
			lack++
		}
	}
	return lack > 0
}

// holds looks anew whether a token has a version.
func holds(p *place, label string, number uint32) (bool, error) {
	if changing, ok := p.opened().(keystore.Changing); ok {
		if err := changing.Refresh(label); err != nil {
			return false, err
		}
	}
	all, err := p.opened().Lookup(label)
	if errors.Is(err, keystore.ErrNotFound) {
		return false, nil
	}
	return slices.ContainsFunc(all, func(v keystore.Version) bool { return v.Number == number }), err
}
