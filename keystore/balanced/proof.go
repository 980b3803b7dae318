package balanced

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A proof is what is known of the keys that are in use, by which a token is judged.
type proof struct {
	prefix    string
	challenge []byte // what keys make their marks of

	mu      sync.Mutex
	rings   map[string]ring   // what is in use, by label
	chosen  map[string]uint32 // versions that seal; zero or none means the newest
	samples []sample          // of sealed keys
}

// A ring is the versions of a key that are in use.
type ring struct {
	marks []mark // newest first
	by    string // the token that was asked first
}

func newProof(prefix string) *proof {
	return &proof{prefix: prefix, challenge: random(32), rings: map[string]ring{}, chosen: map[string]uint32{}}
}

func (pr *proof) known(label string) (ring, bool) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	r, ok := pr.rings[label]
	return r, ok
}

func (pr *proof) use(label string, r ring) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.rings[label] = r
}

// forget ends the use of a version of a key, or with version 0 of all.
func (pr *proof) forget(label string, versions ...uint32) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	r := pr.rings[label]
	r.marks = slices.DeleteFunc(slices.Clone(r.marks), func(m mark) bool {
		return len(versions) == 0 || slices.Contains(versions, m.number) || slices.Contains(versions, 0)
	})
	if pr.rings[label] = r; len(r.marks) == 0 {
		delete(pr.rings, label)
	}
}

func (pr *proof) labels() (all []string) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	for label := range pr.rings {
		all = append(all, label)
	}
	slices.Sort(all)
	return all
}

// examine proves that a token has every key that is in use. The first token decides which
// sealing keys that is.
func (pr *proof) examine(p *place) error {
	for _, role := range keystore.SealingRoles() {
		if err := pr.first(p, role.Label(pr.prefix)); err != nil {
			return err
		}
	}
	for _, label := range pr.labels() {
		found, err := pr.marksOf(p, label)
		if err != nil {
			return err
		}
		want, _ := pr.known(label)
		if err := want.within(p, label, found); err != nil {
			return err
		}
	}
	return pr.verify(p)
}

// first begins to use a sealing key, with all its versions.
func (pr *proof) first(p *place, label string) error {
	if _, ok := pr.known(label); ok {
		return nil
	}
	marks, err := pr.marksOf(p, label)
	if err != nil {
		return err
	}
	pr.use(label, ring{marks, p.name})
	for _, m := range marks {
		if err := pr.sample(p, label, m.number); err != nil {
			return err
		}
	}
	return nil
}

// within wants all versions of a ring among those that a token has.
func (r ring) within(p *place, label string, found []mark) error {
	if err := r.agrees(p, label, found); err != nil {
		return err
	}
	for _, m := range r.marks {
		if !slices.ContainsFunc(found, m.sameVersion) {
			return apart(label, m.number, r.by, p.name)
		}
	}
	return nil
}

// agrees wants the versions that a token has, too, to be the same keys.
func (r ring) agrees(p *place, label string, found []mark) error {
	for _, m := range r.marks {
		for _, other := range found {
			if m.sameVersion(other) && !m.same(other) {
				return another(label, m.number, p.name, "token "+r.by)
			}
		}
	}
	return nil
}

// another is the error of a version that is not the same key on all tokens.
func another(label string, number uint32, on, than string) error {
	return fmt.Errorf("balanced: key %q version %d of token %s is not the same key as that of %s: %w; clone the tokens again", label, number, on, than, ErrDifferent)
}

// apart is the error of a version that one token has, and the other has not.
func apart(label string, number uint32, has, hasNot string) error {
	return fmt.Errorf("balanced: key %q version %d is on token %s and not on token %s: %w; clone it there with the tools of the tokens' vendor", label, number, has, hasNot, ErrDifferent)
}

// A sample is a key that a token sealed. A token that can unseal it has the same sealing keys.
type sample struct {
	label   string
	number  uint32
	blob    []byte
	by      string
	value   string // what the key computes
	measure keystore.Algorithm
}

const sampleContext = "msl-hsm: the same sealing keys?"

// sample has a token seal a key with a version of a sealing key, unless there is such a
// sample. The version seals from then on.
func (pr *proof) sample(p *place, label string, number uint32) error {
	a := keystore.HMACSHA256
	switch label {
	case keystore.RoleSealMAC.Label(pr.prefix):
		return nil // it takes part in the others
	case keystore.RoleSealWrapping.Label(pr.prefix):
		a = keystore.AESWrap128
	}
	if pr.sampled(label, number) {
		return nil
	}
	if err := sealWith(p, label, number); err != nil {
		return err
	}
	made := sample{label: label, number: number, by: p.name, measure: a}
	err := made.make(p, pr.challenge)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, keystore.ErrNotFound) {
		return nil // nothing can be sealed so
	}
	if sealed, e := keystore.ParseSealed(made.blob); err != nil || e != nil || sealed.KEKVersion != number {
		return err // without a partner of the same version it seals nothing
	}
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.samples = append(pr.samples, made)
	return nil
}

func (pr *proof) sampled(label string, number uint32) bool {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return slices.ContainsFunc(pr.samples, func(s sample) bool { return s.label == label && s.number == number })
}

func (s *sample) make(p *place, challenge []byte) error {
	k, err := p.opened().Generate(s.measure)
	if err != nil {
		return err
	}
	defer k.Close()
	if s.value, err = valueOf(k, challenge); err != nil {
		return err
	}
	s.blob, err = p.opened().Seal(k, []byte(sampleContext))
	return err
}

// verify has a token unseal the samples of the versions that are in use.
func (pr *proof) verify(p *place) error {
	pr.mu.Lock()
	samples := slices.Clone(pr.samples)
	pr.mu.Unlock()
	for _, s := range samples {
		if r, _ := pr.known(s.label); !slices.ContainsFunc(r.marks, func(m mark) bool { return m.number == s.number }) {
			continue
		}
		if err := s.verify(p, pr.challenge); err != nil {
			return err
		}
	}
	return nil
}

func (s *sample) verify(p *place, challenge []byte) error {
	k, err := p.opened().Unseal(s.measure, s.blob, []byte(sampleContext))
	var value string
	if err == nil {
		defer k.Close()
		value, err = valueOf(k, challenge)
	}
	if errors.Is(err, keystore.ErrForeign) || err == nil && value != s.value {
		return fmt.Errorf("balanced: token %s does not unseal what token %s sealed with key %q version %d: %w; clone the tokens again", p.name, s.by, s.label, s.number, ErrDifferent)
	}
	return err
}

// choose has a token seal with the versions that all seal with.
func (pr *proof) choose(p *place) error {
	for _, role := range keystore.SealingRoles() {
		label := role.Label(pr.prefix)
		if number := pr.sealing(label); number > 0 {
			if err := sealWith(p, label, number); err != nil {
				return err
			}
		}
	}
	return nil
}

// sealing is the version of a sealing key that seals: the chosen one, or the newest below
// it that is in use.
func (pr *proof) sealing(label string) uint32 {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	most := pr.chosen[label]
	for _, m := range pr.rings[label].marks {
		if most == 0 || m.number <= most {
			return m.number
		}
	}
	return 0
}

// sealWith has a token seal with a version of a sealing key. A token that cannot choose seals
// with the newest.
func sealWith(p *place, label string, number uint32) error {
	if changing, ok := p.opened().(keystore.Changing); ok {
		return changing.SealWith(label, number)
	}
	return nil
}
