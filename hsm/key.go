package hsm

import (
	"crypto"
	"fmt"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

var errClosed = fmt.Errorf("hsm: %w", keystore.ErrClosed)

// An object is a key in the token. It outlives the handle that it has now: after
// a failure of the device a provisioned key is found again, and a sealed one
// unwrapped again.
type object struct {
	store     *Store
	algorithm keystore.Algorithm
	public    crypto.PublicKey // of a key pair

	// Where a new handle comes from. Only one of them is set, or none.
	label   string // a provisioned key
	version uint32
	wrapped []byte // a sealed key, in this form, under this version of its sealing key
	kek     uint32
	form    form // of a sealing key, that in which it seals
	sealer  mark // of a sealing key

	restoring lock // held while a new handle is got

	mu      sync.Mutex
	ref           // to it in the token
	dropped []ref // that the token may have lost, while operations use them
	users   int   // operations under way
	closed  bool
	locked  bool // it may not leave
}

// Algorithm returns what the key is for.
func (k *object) Algorithm() keystore.Algorithm { return k.algorithm }

// Latency returns the module's latency, see [keystore.Timed].
func (k *object) Latency() time.Duration { return k.store.pace.Least() }

// own is how a store knows its keys again.
func (k *object) own() *object { return k }

// own returns the object behind a key of this store.
func (s *Store) own(k keystore.Key) (*object, error) {
	if mine, ok := k.(interface{ own() *object }); ok {
		if o := mine.own(); o != nil && o.store == s {
			return o, nil
		}
	}
	return nil, fmt.Errorf("hsm: the key is not of this store: %w", keystore.ErrWrongKey)
}

// typed gives the object the methods of its algorithm, and no others.
func (k *object) typed() keystore.Key {
	switch k.algorithm {
	case keystore.AES128CBC, keystore.AES256CBC:
		return cipherKey{k}
	case keystore.HMACSHA256, keystore.HMACSHA256Block, keystore.AESCMAC128:
		return macKey{k}
	case keystore.AESWrap128:
		return wrapKey{k}
	case keystore.AESUnwrap128:
		return unwrapKey{k}
	case keystore.RSAUnwrap2048, keystore.RSAUnwrap3072, keystore.RSAUnwrap4096:
		return privateUnwrapKey{unwrapKey{k}}
	case keystore.RSASign2048, keystore.RSASign3072, keystore.RSASign4096, keystore.ECDSAP256, keystore.ECDSAP384:
		return signKey{k}
	case keystore.RSAPSS2048, keystore.RSAPSS3072, keystore.RSAPSS4096:
		return pssKey{k}
	case keystore.RSADecrypt2048, keystore.RSADecrypt3072, keystore.RSADecrypt4096:
		return decryptKey{k}
	case keystore.AESReveal128:
		return revealKey{k}
	}
	return k // a sealing key does nothing by itself
}

// Close destroys a session key, at the latest when its operations in progress have
// returned.
func (k *object) Close() error {
	k.mu.Lock()
	k.closed = true
	dead := k.last()
	k.mu.Unlock()
	k.store.graves.dispose(dead)
	return nil
}

// last takes the object of a session key away from k once nobody uses it any more.
// The caller holds k.mu, and disposes of the object without it: the call into the
// module may not return.
func (k *object) last() (dead ref) {
	if k.closed && k.users == 0 && k.label == "" {
		dead, k.ref = k.ref, ref{}
	}
	return dead
}

// use runs op with the handle on a session of the pool. A closing of the key
// waits for it.
func (k *object) use(p *pool, op func(session, handle uint, epoch uint64) error) error {
	handle, epoch, err := k.acquire()
	if err != nil {
		return err
	}
	defer k.release()
	return k.store.on(p, epoch, func(session uint, now uint64) error { return op(session, handle, now) })
}

// run is use on a pooled session, repeated after a failure that allows it.
func (k *object) run(op func(session, handle uint) error) error {
	return k.store.recovery.attempt(func() error {
		return k.use(k.store.sessions, func(session, handle uint, _ uint64) error { return op(session, handle) })
	}, nil, k)
}

func (k *object) acquire() (handle uint, epoch uint64, err error) {
	for {
		k.mu.Lock()
		now := k.store.life.Load()
		switch {
		case k.closed || k.store.isClosed():
			k.mu.Unlock()
			return 0, 0, errClosed
		case now == nil && k.epoch == 0:
			k.mu.Unlock()
			return 0, 0, &Error{stale: true}
		case now == nil || k.epoch == now.epoch:
			// Without a life the caller's next step finds out.
			k.users++
			handle, epoch = k.handle, k.epoch
			k.mu.Unlock()
			return handle, epoch, nil
		}
		k.mu.Unlock()
		if err := k.restore(now.epoch); err != nil {
			return 0, 0, err
		}
	}
}

func (k *object) release() {
	k.mu.Lock()
	k.users--
	if !k.closed && len(k.dropped) == 0 { // as nearly always
		k.mu.Unlock()
		return
	}
	dead, dropped := k.last(), k.takeDropped()
	k.mu.Unlock()
	k.store.graves.dispose(dead)
	k.store.graves.bury(dropped...)
}

// restore gets a new handle, unless another goroutine got one meanwhile.
func (k *object) restore(epoch uint64) error {
	s := k.store
	if err := k.restoring.take(s.wait); err != nil {
		return err
	}
	defer k.restoring.free()
	k.mu.Lock()
	current := k.epoch == epoch
	found := object{store: s, algorithm: k.algorithm, locked: k.locked}
	k.mu.Unlock()
	if current {
		return nil
	}
	switch {
	case k.label != "":
		v, err := s.rings.findVersion(k.label, k.version)
		if err != nil {
			return err
		}
		found.handle, found.epoch = v.handle, v.epoch()
	case k.wrapped != nil:
		if err := s.unwrapSealed(&found, k); err != nil {
			return err
		}
	default:
		return fmt.Errorf("hsm: the %v key was lost when the token was opened again: %w", k.algorithm, keystore.ErrLost)
	}
	k.mu.Lock()
	k.ref = found.ref
	dead := k.last()
	k.mu.Unlock()
	s.graves.dispose(dead)
	return nil
}

// mayBeLost reports whether there is no way to get another handle.
func (k *object) mayBeLost() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.label == "" && k.wrapped == nil
}

// forget drops a handle that the token does not know any more, if there is a
// way to get another one.
func (k *object) forget(epoch uint64) bool {
	k.mu.Lock()
	if k.label == "" && k.wrapped == nil {
		k.mu.Unlock()
		return false
	}
	if k.epoch == epoch {
		if k.label != "" {
			k.store.rings.outdate(k.label)
		} else {
			k.store.graves.count(k.ref, -1)
			k.dropped = append(k.dropped, k.ref)
		}
		k.ref = ref{}
	}
	dropped := k.takeDropped()
	k.mu.Unlock()
	k.store.graves.bury(dropped...) // in case the token knows it after all
	return true
}

// takeDropped returns handles that were dropped, once nobody uses them: another
// operation may have got one just now, and know better. The caller holds k.mu.
func (k *object) takeDropped() (dropped []ref) {
	if k.users == 0 {
		dropped, k.dropped = k.dropped, nil
	}
	return dropped
}

// usable is errClosed after Close.
func (k *object) usable() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || k.store.isClosed() {
		return errClosed
	}
	return nil
}

// leave reports whether the key may still leave the token, and with last
// forbids it from now on.
func (k *object) leave(last bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed || k.store.isClosed():
		return errClosed
	case k.locked:
		return fmt.Errorf("hsm: %v key: %w", k.algorithm, keystore.ErrLocked)
	}
	k.locked = last
	return nil
}
