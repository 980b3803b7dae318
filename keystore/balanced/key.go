package balanced

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A key is one on the tokens: a provisioned key on each of them, a session key on one.
type key struct {
	store     *tokens
	algorithm keystore.Algorithm
	public    crypto.PublicKey // of a pair

	label string // of a provisioned key
	mark  mark   // of its version

	opening sync.Mutex // held while it is opened on another token

	mu            sync.Mutex
	blob, context []byte // of a sealed key
	at            []*handle
	closed        bool
}

// A handle is a key on one token.
type handle struct {
	place   *place
	inner   keystore.Key
	users   int  // operations under way; guarded by the mutex of the key
	leaving bool // it is closed after the last of them
}

// adopt makes a session key of one on a token.
func (s *tokens) adopt(p *place, inner keystore.Key) *key {
	k := &key{store: s, algorithm: inner.Algorithm(), at: []*handle{{place: p, inner: inner}}}
	if pair, ok := inner.(interface{ Public() crypto.PublicKey }); ok {
		k.public = pair.Public()
	}
	return k
}

// Algorithm returns what the key is for.
func (k *key) Algorithm() keystore.Algorithm { return k.algorithm }

// Latency is that of the token that the key was used on last, see [keystore.Timed].
func (k *key) Latency() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.at) > 0 {
		if timed, ok := k.at[0].inner.(keystore.Timed); ok {
			return timed.Latency()
		}
	}
	return 0
}

// own is how a store knows its keys again.
func (k *key) own() *key { return k }

// own returns the key behind one of this store.
func (s *tokens) own(k keystore.Key) (*key, error) {
	if mine, ok := k.(interface{ own() *key }); ok {
		if own := mine.own(); own != nil && own.store == s {
			return own, nil
		}
	}
	return nil, fmt.Errorf("balanced: the key is not of this store: %w", keystore.ErrWrongKey)
}

// remember keeps what makes a sealed key again.
func (k *key) remember(blob, context []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.blob, k.context = slices.Clone(blob), slices.Clone(context)
}

// bound returns the only token that has the key, or nil if others can have it.
func (k *key) bound() *place {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.label != "" || k.blob != nil || len(k.at) == 0 {
		return nil
	}
	return k.at[0].place
}

// home returns the token that a session key is on.
func (k *key) home() *place {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.label != "" || len(k.at) == 0 {
		return nil
	}
	return k.at[0].place
}

// take returns the key on a token, for an operation, after which it is given back.
func (k *key) take(p *place) (*handle, error) {
	if h, err := k.present(p); h != nil || err != nil {
		return h, err
	}
	k.opening.Lock()
	defer k.opening.Unlock()
	if h, err := k.present(p); h != nil || err != nil {
		return h, err
	}
	inner, err := bounded(p, k.store.limit, func() (keystore.Key, error) { return k.again(p) })
	if err != nil {
		return nil, err
	}
	h, left, err := k.install(p, inner)
	left.close()
	return h, err
}

// present takes the key on a token where it is.
func (k *key) present(p *place) (*handle, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || k.store.isClosed() {
		return nil, errClosed
	}
	for _, h := range k.at {
		if h.place == p {
			h.users++
			return h, nil
		}
	}
	return nil, nil
}

// install takes a key that was opened on a token, and returns those of a session key that
// are nobody's from now on.
func (k *key) install(p *place, inner keystore.Key) (h *handle, left handles, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h = &handle{place: p, inner: inner, users: 1}
	if k.closed {
		return nil, handles{h}, errClosed
	}
	if k.label == "" {
		left = k.leave()
		k.at = nil
	}
	k.at = append([]*handle{h}, k.at...)
	return h, left, nil
}

// leave marks the handles of a session key for closing, and returns those that are not in
// use. The caller holds the mutex.
func (k *key) leave() (idle handles) {
	for _, h := range k.at {
		if h.leaving = true; h.users == 0 {
			idle = append(idle, h)
		}
	}
	return idle
}

// handles are those that nobody uses any more.
type handles []*handle

// close closes handles. A token that does not work is not waited for: the keys went with
// it, or go when it is back.
func (all handles) close() error {
	var errs []error
	for _, h := range all {
		if now, _ := h.place.look(); now != fit {
			go h.inner.Close()
			continue
		}
		_, err := bounded(h.place, closeLimit, func() (none, error) { return none{}, h.inner.Close() })
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// closeLimit is how long the closing of a key is waited for.
const closeLimit = time.Second

// again opens the key on another token.
func (k *key) again(p *place) (keystore.Key, error) {
	k.mu.Lock()
	blob, context := k.blob, k.context
	k.mu.Unlock()
	switch {
	case k.label != "":
		return k.lookedUp(p)
	case blob == nil:
		return nil, fmt.Errorf("balanced: the %v key was lost with its token: %w", k.algorithm, keystore.ErrLost)
	}
	inner, err := p.opened().Unseal(k.algorithm, blob, context)
	if errors.Is(err, keystore.ErrForeign) {
		err = fmt.Errorf("balanced: a sealed %v key does not open on token %s: %w: %w", k.algorithm, p.name, err, keystore.ErrUnavailable)
	}
	return inner, err
}

// lookedUp finds a provisioned key, and proves that it is the same one: the token may have
// been examined before the key was in use, or be another one since.
func (k *key) lookedUp(p *place) (keystore.Key, error) {
	versions, err := p.opened().Lookup(k.label)
	if err != nil {
		return nil, err
	}
	for _, v := range versions {
		if v.Number != k.mark.number {
			continue
		}
		switch m, err := k.store.proof.markOf(k.label, v); {
		case err != nil:
			return nil, err
		case !m.same(k.mark):
			return nil, another(k.label, v.Number, p.name, "others")
		}
		return v.Key, nil
	}
	return nil, fmt.Errorf("balanced: token %s has no key %q version %d: %w", p.name, k.label, k.mark.number, keystore.ErrNotFound)
}

// give ends an operation with a handle.
func (k *key) give(h *handle) {
	k.mu.Lock()
	h.users--
	last := h.leaving && h.users == 0
	k.mu.Unlock()
	if last {
		h.inner.Close()
	}
}

// Close destroys a session key, at the latest when the operations under way with it have
// returned.
func (k *key) Close() error {
	k.mu.Lock()
	var idle handles
	if !k.closed && k.label == "" {
		idle = k.leave()
	}
	k.closed = true
	k.mu.Unlock()
	return idle.close()
}

// carry brings a session key that was not sealed yet to another token: wrapped for a pair
// that was made there only for this.
func (s *tokens) carry(k *key, to *place) error {
	made, err := bounded(to, s.most(keystore.RSAUnwrap2048), func() (keystore.Key, error) {
		return to.opened().Generate(keystore.RSAUnwrap2048)
	})
	if err != nil {
		return err
	}
	defer made.Close()
	pair, ok := made.(privateUnwrapper)
	if !ok {
		return fmt.Errorf("balanced: two keys are on different tokens: %w", errors.ErrUnsupported)
	}
	wrapped, err := s.WrapFor(pair.Public(), k)
	if err != nil {
		return err
	}
	inner, err := bounded(to, s.limit, func() (keystore.Key, error) { return pair.Unwrap(k.algorithm, wrapped) })
	if err != nil {
		return err
	}
	h, left, err := k.install(to, inner)
	if err == nil {
		k.give(h)
	}
	return errors.Join(err, left.close())
}
