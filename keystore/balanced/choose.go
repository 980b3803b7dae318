package balanced

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// use does an operation with keys on one token and, where that token fails or cannot do it,
// on another. An operation without keys can be done on any.
func use[T any](s *tokens, limit time.Duration, keys []*key, op func(p *place, on []keystore.Key) (T, error)) (T, error) {
	var tried []*place
	var first error
	for {
		p, err := s.choose(keys, tried)
		if err != nil {
			var zero T
			if first != nil {
				err = first
			}
			return zero, err
		}
		v, err := on(p, limit, keys, op)
		lacks := errors.Is(err, errors.ErrUnsupported)
		if err == nil || !lacks && !elsewhere(err) || s.isClosed() {
			return v, err
		}
		if !lacks {
			p.doubt(err)
		}
		tried = append(tried, p)
		if first == nil {
			first = named(p, err)
		}
	}
}

// on does an operation on a token.
func on[T any](p *place, limit time.Duration, keys []*key, op func(p *place, on []keystore.Key) (T, error)) (T, error) {
	var handles []*handle
	var inner []keystore.Key
	rested := p.rested()
	give := func() {
		for i, h := range handles {
			keys[i].give(h)
		}
	}
	for _, k := range keys {
		h, err := k.take(p)
		if err != nil {
			give()
			var zero T
			return zero, err
		}
		handles, inner = append(handles, h), append(inner, h.inner)
	}
	return bounded(p, limit, func() (T, error) {
		defer give()
		began := time.Now()
		v, err := op(p, inner)
		switch _, made := any(v).(keystore.Key); {
		case err != nil:
		case len(keys) == 1 && quick(keys[0].algorithm):
			p.took(time.Since(began), rested)
		case made:
			p.tookLonger(time.Since(began))
		}
		return v, err
	})
}

// quick reports whether operations with such keys take about as long as each other.
func quick(a keystore.Algorithm) bool {
	switch a {
	case keystore.AES128CBC, keystore.AES256CBC, keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.AESCMAC128:
		return true
	}
	return false
}

// choose returns the token to do an operation on: that of a key which is nowhere else, or
// the one with the shortest queue. A token in doubt is used if there is no other.
func (s *tokens) choose(keys []*key, tried []*place) (*place, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	for _, k := range keys {
		if p := k.bound(); p != nil {
			if slices.Contains(tried, p) {
				return nil, s.unusable()
			}
			return p, nil
		}
	}
	for _, want := range []state{fit, doubted} {
		if p := s.shortest(want, keys, tried); p != nil {
			return p, nil
		}
	}
	return nil, s.unusable()
}

// loyalty is how much longer the queue of the token may be that a session key is on: to
// open it on another one costs about as much as these operations.
const loyalty = 4

// shortest returns the token in a state that has the shortest queue, as long as it takes there.
func (s *tokens) shortest(want state, keys []*key, tried []*place) (best *place) {
	var home *place
	if len(keys) > 0 {
		home = keys[0].home()
	}
	least, turn, quickest := int64(0), int(s.turn.Add(1)), s.quickest(want)
	for i := range s.places {
		p := s.places[(turn+i)%len(s.places)]
		if now, _ := p.look(); now != want || slices.Contains(tried, p) {
			continue
		}
		queue := (p.busy.Load() + 1) * p.slowness(quickest)
		switch {
		case p.stalls():
			queue += 1 << 32
		case p == home:
			queue -= loyalty
		}
		if best == nil || queue < least {
			best, least = p, queue
		}
	}
	return best
}

// quickest returns how long an operation takes on the quickest of the tokens in a state of which
// that is known, and 0 if there is none.
func (s *tokens) quickest(want state) (least time.Duration) {
	for _, p := range s.places {
		now, _ := p.look()
		if own := time.Duration(p.usual.Load()); now == want && own > 0 && (least == 0 || own < least) {
			least = own
		}
	}
	return least
}

// unusable is the error where no token can be used.
func (s *tokens) unusable() error {
	var why []string
	for _, p := range s.places {
		if _, err := p.look(); err != nil {
			why = append(why, fmt.Sprintf("%s: %v", p.name, err))
		}
	}
	if len(why) == 0 {
		return errors.Join(keystore.ErrUnavailable)
	}
	return fmt.Errorf("balanced: no other token can be used (%s): %w", strings.Join(why, "; "), keystore.ErrUnavailable)
}
