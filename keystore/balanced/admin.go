package balanced

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Create is errors.ErrUnsupported: a key that never leaves its token cannot be made on
// two.
func (s *rings) Create(label string, a keystore.Algorithm) (keystore.Version, error) {
	if s.isClosed() {
		return keystore.Version{}, errClosed
	}
	return keystore.Version{}, fmt.Errorf("balanced: the %v key %q cannot be made on %d tokens, since it never leaves the one where it is made: make it on one of them, and clone it to the others with the tools of their vendor: %w",
		a, label, len(s.places), errors.ErrUnsupported)
}

// Provision makes the next version of a provisioned key from the same bytes on every
// token, or on none.
func (s *rings) Provision(label string, a keystore.Algorithm, raw []byte) (keystore.Version, error) {
	if err := s.complete(); err != nil {
		return keystore.Version{}, err
	}
	var done []*place
	var number uint32
	for _, p := range s.places {
		v, err := provision(p, label, a, raw)
		if err == nil {
			done = append(done, p)
			number = cmp.Or(number, v.Number)
			if v.Number != number {
				err = fmt.Errorf("balanced: its newest version is not the same as on token %s: %w", s.places[0].name, ErrDifferent)
			}
		}
		if err != nil {
			return keystore.Version{}, errors.Join(named(p, err), takeBack(done, label, number, v.Number))
		}
	}
	s.forget(label)
	versions, err := s.Lookup(label)
	if err != nil {
		return keystore.Version{}, err
	}
	return versions[0], nil
}

func provision(p *place, label string, a keystore.Algorithm, raw []byte) (keystore.Version, error) {
	store, err := as[keystore.Provisioner](p)
	if err != nil {
		return keystore.Version{}, err
	}
	return store.Provision(label, a, raw)
}

// takeBack destroys what was made on some tokens: version number, and on the last one
// perhaps another.
func takeBack(done []*place, label string, number, last uint32) error {
	var errs []error
	for i, p := range done {
		if i == len(done)-1 {
			number = cmp.Or(last, number)
		}
		store, err := as[keystore.Admin](p)
		if err == nil {
			err = store.Destroy(label, number)
		}
		errs = append(errs, named(p, err))
	}
	return errors.Join(errs...)
}

// complete wants every token, since what changes must change on all.
func (s *rings) complete() error {
	if s.isClosed() {
		return errClosed
	}
	for _, p := range s.places {
		if now, why := p.look(); now == out {
			return fmt.Errorf("balanced: keys change on all tokens or on none: token %s: %w", p.name, why)
		}
	}
	return nil
}

// List describes the provisioned keys that are on every token that can be used, as the
// first of these does.
func (s *rings) List() (common []keystore.Info, err error) {
	listed := false
	for _, p := range s.places {
		if now, _ := p.look(); now == out {
			continue
		}
		all, failed := bounded(p, s.most(keystore.RSASign4096), func() ([]keystore.Info, error) { return list(p) })
		switch {
		case failed != nil && elsewhere(failed):
			p.doubt(failed)
			err = named(p, failed)
		case failed != nil:
			return nil, named(p, failed)
		case !listed:
			common, listed = all, true
		default:
			common = slices.DeleteFunc(common, func(k keystore.Info) bool {
				return !slices.ContainsFunc(all, func(o keystore.Info) bool { return o.Label == k.Label && o.Version == k.Version })
			})
		}
	}
	if listed {
		return common, nil
	}
	if err == nil {
		err = s.unusable()
	}
	return nil, err
}

func list(p *place) ([]keystore.Info, error) {
	store, err := as[keystore.Admin](p)
	if err != nil {
		return nil, err
	}
	return store.List()
}

// changing is how long it may take to change the provisioned keys of a token, with the wait for
// another program that does so.
func (s *tokens) changing() time.Duration {
	if s.limit < 0 {
		return s.limit
	}
	return s.limit + keystore.OthersWait
}

// Destroy removes one version of a provisioned key, or all, from every token. It is
// [keystore.ErrNotFound] if none has it.
func (s *rings) Destroy(label string, version uint32) error {
	if err := s.complete(); err != nil {
		return err
	}
	defer s.forget(label)
	s.proof.forget(label, version)
	missing := 0
	var last error
	for _, p := range s.places {
		_, err := bounded(p, s.changing(), func() (none, error) {
			store, err := as[keystore.Admin](p)
			if err != nil {
				return none{}, err
			}
			return none{}, store.Destroy(label, version)
		})
		switch {
		case errors.Is(err, keystore.ErrNotFound):
			missing, last = missing+1, err
		case err != nil:
			return named(p, err)
		}
	}
	if missing == len(s.places) {
		return last
	}
	return nil
}
