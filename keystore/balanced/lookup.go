package balanced

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Rings are the provisioned keys that were looked up, by label.
type rings struct {
	*tokens
	mu    sync.Mutex
	known map[string]lookedUp
}

// Lookup finds a provisioned key, and proves that the tokens hold the same one. The first
// time all must have the same versions. Later, versions that others do not have yet, or
// not any more, are left out.
func (s *rings) Lookup(label string) ([]keystore.Version, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	s.mu.Lock()
	known, ok := s.known[label]
	s.mu.Unlock()
	if ok && s.isWhole(known) {
		return s.versions(label, known), nil
	}
	found, err := s.find(label)
	if err == nil {
		found, err = s.agreeing(label, found)
	}
	if err != nil {
		return nil, err
	}
	r, err := s.agree(label, found)
	if errors.Is(err, keystore.ErrNotFound) {
		s.proof.forget(label)
	}
	if err != nil {
		return nil, err
	}
	s.proof.use(label, r)
	s.mu.Lock()
	s.known[label] = lookedUp{r, found}
	s.mu.Unlock()
	return s.versions(label, lookedUp{r, found}), nil
}

// A lookedUp is a ring, and where its keys are.
type lookedUp struct {
	ring ring
	all  []found
}

// A found is what one token has of a ring.
type found struct {
	place *place
	marks []mark
}

// isWhole reports whether a key was looked up on every token that is fit: one may be back.
func (s *rings) isWhole(l lookedUp) bool {
	for _, p := range s.places {
		if now, _ := p.look(); now == fit && !slices.ContainsFunc(l.all, func(f found) bool { return f.place == p }) {
			return false
		}
	}
	return true
}

// agreeing leaves out the tokens whose keys are not those in use, unless all are such. They
// are examined, and lost.
func (s *rings) agreeing(label string, all []found) (some []found, err error) {
	known, _ := s.proof.known(label)
	for _, f := range all {
		if failed := known.agrees(f.place, label, f.marks); failed != nil {
			err = failed
			f.place.doubt(failed)
			continue
		}
		some = append(some, f)
	}
	if len(some) > 0 {
		err = nil
	}
	return some, err
}

// find looks a key up on every token that can be used.
func (s *rings) find(label string) (all []found, err error) {
	for _, p := range s.places {
		if now, _ := p.look(); now == out {
			continue
		}
		marks, failed := bounded(p, s.most(keystore.RSASign4096), func() ([]mark, error) { return s.proof.marksOf(p, label) })
		switch {
		case failed == nil:
			all = append(all, found{p, marks})
		case elsewhere(failed):
			p.doubt(failed)
			err = named(p, failed)
		default:
			return nil, named(p, failed)
		}
	}
	if len(all) == 0 && err == nil {
		err = s.unusable()
	}
	if len(all) > 0 {
		err = nil
	}
	return all, err
}

// agree returns the versions that all tokens have.
func (s *rings) agree(label string, all []found) (ring, error) {
	_, again := s.proof.known(label)
	r := ring{slices.Clone(all[0].marks), all[0].place.name}
	for _, other := range all[1:] {
		if err := r.agrees(other.place, label, other.marks); err != nil {
			return r, err
		}
		if err := s.common(&r, label, other, again); err != nil {
			return r, err
		}
	}
	if len(r.marks) == 0 {
		return r, fmt.Errorf("balanced: key %q: %w", label, keystore.ErrNotFound)
	}
	return r, nil
}

// common leaves out of a ring what another token does not have, and tells what that has
// more. Of a key that is new here that is an error.
func (s *rings) common(r *ring, label string, other found, again bool) error {
	lacks := func(of []mark) func(mark) bool {
		return func(m mark) bool { return !slices.ContainsFunc(of, m.sameVersion) }
	}
	for _, m := range r.marks {
		if lacks(other.marks)(m) {
			if !again {
				return apart(label, m.number, r.by, other.place.name)
			}
			s.log.Warn("a version of a key is not used because it is not on all tokens", "key", label, "version", m.number, "missing_on", other.place.name)
		}
	}
	for _, m := range other.marks {
		if lacks(r.marks)(m) {
			if !again {
				return apart(label, m.number, other.place.name, r.by)
			}
			s.log.Warn("a version of a key is not used because it is not on all tokens", "key", label, "version", m.number, "missing_on", r.by)
		}
	}
	r.marks = slices.DeleteFunc(r.marks, lacks(other.marks))
	return nil
}

// versions makes the keys of a ring, which are open on each token where it was found.
func (s *rings) versions(label string, l lookedUp) (versions []keystore.Version) {
	for _, m := range l.ring.marks {
		k := s.adopt(l.all[0].place, m.key)
		k.label, k.mark, k.at = label, m, nil
		for _, f := range l.all {
			i := slices.IndexFunc(f.marks, m.sameVersion)
			k.at = append(k.at, &handle{place: f.place, inner: f.marks[i].key})
		}
		versions = append(versions, keystore.Version{Number: m.number, Key: k.typed()})
	}
	return versions
}

// Refresh makes the store look up provisioned keys again at their next use, and examine
// lost tokens now.
func (s *rings) Refresh(labels ...string) error {
	for _, p := range s.places {
		if now, _ := p.look(); now == out {
			p.poke()
			continue
		}
		_, err := bounded(p, s.limit, func() (none, error) {
			if changing, ok := p.opened().(keystore.Changing); ok {
				return none{}, changing.Refresh(labels...)
			}
			return none{}, nil
		})
		if err != nil {
			p.doubt(err)
		}
	}
	s.forget(labels...)
	return s.renewSealing()
}

func (s *rings) forget(labels ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(labels) == 0 {
		clear(s.known)
	}
	for _, label := range labels {
		delete(s.known, label)
	}
}

// renewSealing looks for the versions of the sealing keys, and has all tokens seal with the
// same ones.
func (s *rings) renewSealing() error {
	for _, role := range keystore.SealingRoles() {
		label := role.Label(s.proof.prefix)
		if _, err := s.Lookup(label); errors.Is(err, keystore.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		s.seal(label)
	}
	return nil
}

// SealWith makes Seal use a version of a sealing key that all tokens have: that one or, if
// it does not exist, the next lower one; zero means the newest.
func (s *rings) SealWith(label string, version uint32) error {
	s.proof.mu.Lock()
	s.proof.chosen[label] = version
	s.proof.mu.Unlock()
	s.forget(label)
	if _, err := s.Lookup(label); errors.Is(err, keystore.ErrNotFound) {
		return nil // nothing is sealed here
	} else if err != nil {
		return err
	}
	s.seal(label)
	return nil
}

// seal has the tokens seal with one version, after a proof that the others
// unseal it.
func (s *rings) seal(label string) {
	number := s.proof.sealing(label)
	for _, p := range s.places {
		if now, _ := p.look(); now == out {
			continue
		}
		_, err := bounded(p, s.limit, func() (none, error) {
			if err := s.proof.sample(p, label, number); err != nil {
				return none{}, err
			}
			if err := s.proof.verify(p); err != nil {
				return none{}, err
			}
			return none{}, sealWith(p, label, number)
		})
		if err != nil {
			p.doubt(err)
		}
	}
}
