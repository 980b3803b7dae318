package isolated

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A key is one in the child. It outlives the child: in the next one, a provisioned key is
// looked up again, and a sealed one unsealed again.
type key struct {
	store     *Store
	algorithm keystore.Algorithm
	public    crypto.PublicKey // of a pair

	label   string // of a provisioned key
	version uint32
	mark    []byte // by which it is known again, or nothing

	mu            sync.Mutex
	blob, context []byte // of a sealed key
	handle        uint64
	generation    uint64 // of the child that has the handle
	closed        bool
}

// Algorithm returns what the key is for.
func (k *key) Algorithm() keystore.Algorithm { return k.algorithm }

// Latency is that of the child and its device, see [keystore.Timed].
func (k *key) Latency() time.Duration {
	if p, _, _ := k.store.look(); p != nil {
		return p.pace.Least()
	}
	return 0
}

// own is how a store knows its keys again.
func (k *key) own() *key { return k }

// own returns the key behind one of this store.
func (s *Store) own(k keystore.Key) (*key, error) {
	if mine, ok := k.(interface{ own() *key }); ok {
		if own := mine.own(); own != nil && own.store.supervisor == s.supervisor {
			return own, nil
		}
	}
	return nil, fmt.Errorf("isolated: the key is not of this store: %w", keystore.ErrWrongKey)
}

// Close destroys a session key in the child.
func (k *key) Close() error {
	k.mu.Lock()
	closed := k.closed
	k.closed = true
	handle, generation := k.handle, k.generation
	k.mu.Unlock()
	if closed || k.label != "" {
		return nil
	}
	p, _, _ := k.store.look()
	if p == nil || p.generation != generation {
		return nil // it went with its process
	}
	err := p.call(k.store.config.limit(), opClose, func(m message) message { return m.number(handle) }, func(*fields) error { return nil })
	if errors.As(err, new(*lostError)) {
		return nil
	}
	return err
}

// in returns the handle of the key in a child.
func (k *key) in(p *process) (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return 0, errClosed
	}
	if k.generation == p.generation {
		return k.handle, nil
	}
	found, err := k.again(p)
	if err != nil {
		return 0, err
	}
	k.handle, k.generation = found.handle, p.generation
	return k.handle, nil
}

// again gets the key of a former child in the present one.
func (k *key) again(p *process) (found *key, err error) {
	switch {
	case k.label != "":
		return k.lookedUp(p)
	case k.blob != nil:
		return k.unsealed(p)
	}
	return nil, fmt.Errorf("isolated: the %v key was lost with the process of the key store: %w", k.algorithm, keystore.ErrLost)
}

// lookedUp finds a provisioned key, which must be the same as before.
func (k *key) lookedUp(p *process) (found *key, err error) {
	err = k.store.lookup(p, k.label, func(other *key) {
		if other.version == k.version {
			found = other
		}
	})
	switch {
	case err != nil:
		return nil, err
	case found == nil:
		return nil, fmt.Errorf("isolated: key %q no longer has version %d: %w", k.label, k.version, keystore.ErrNotFound)
	case found.algorithm != k.algorithm || k.public != nil && !keystore.SamePublic(found.public, k.public) || !bytes.Equal(found.mark, k.mark):
		return nil, fmt.Errorf("isolated: key %q version %d is not the same key as before, as if its token had been replaced: %w", k.label, k.version, keystore.ErrUnavailable)
	}
	return found, nil
}

// unsealed unseals a key again. Its blob was good before, so what fails now is the store.
func (k *key) unsealed(p *process) (found *key, err error) {
	write := func(m message) message { return m.number(uint64(k.algorithm)).bytes(k.blob).bytes(k.context) }
	err = p.call(k.store.config.limit(), opUnseal, write, func(f *fields) (err error) {
		found, err = k.store.take(p, f.key())
		return err
	})
	if errors.Is(err, keystore.ErrForeign) {
		err = fmt.Errorf("isolated: a sealed %v key no longer opens, as if its token had been replaced: %w: %w", k.algorithm, err, keystore.ErrUnavailable)
	}
	return found, err
}

// call makes a call whose first field is the key.
func (k *key) call(op operation, write func(message) message, use func(*fields) error) error {
	return k.store.do(op, func(p *process) error {
		handle, err := k.in(p)
		if err != nil {
			return err
		}
		return p.call(k.store.config.limit(), op, func(m message) message { return write(m.number(handle)) }, use)
	})
}

// bytes makes a call that answers with bytes.
func (k *key) bytes(op operation, write func(message) message) (out []byte, err error) {
	err = k.call(op, write, func(f *fields) error {
		out = append([]byte{}, f.bytes()...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
