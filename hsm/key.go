package hsm

import (
	"crypto"
	"errors"
	"fmt"
	"sync"

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
	wrapped []byte // a sealed key, under this version of its sealing key
	kek     uint32

	mu     sync.Mutex
	handle uint
	epoch  uint64 // that the handle is of
	users  int    // operations under way
	closed bool
	locked bool // it may not leave
}

// Algorithm returns what the key is for.
func (k *object) Algorithm() keystore.Algorithm { return k.algorithm }

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
	case keystore.HMACSHA256, keystore.AESCMAC128:
		return macKey{k}
	case keystore.AESWrap128:
		return wrapKey{k}
	case keystore.AESUnwrap128:
		return unwrapKey{k}
	case keystore.RSAUnwrap2048, keystore.RSAUnwrap3072, keystore.RSAUnwrap4096:
		return privateUnwrapKey{unwrapKey{k}}
	case keystore.RSASign2048, keystore.RSASign3072, keystore.RSASign4096, keystore.ECDSAP256, keystore.ECDSAP384:
		return signKey{k}
	case keystore.RSADecrypt2048, keystore.RSADecrypt3072, keystore.RSADecrypt4096:
		return decryptKey{k}
	case keystore.AESReveal128:
		return revealKey{k}
	}
	return k // a sealing key does nothing by itself
}

// Close destroys a session key, at the latest when the operations under way
// with it have returned.
func (k *object) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	if k.users > 0 {
		return nil
	}
	return k.dispose()
}

// dispose destroys the object of a session key. The caller holds k.mu.
func (k *object) dispose() error {
	if k.label != "" || k.epoch == 0 {
		return nil
	}
	err := k.store.on(k.store.anchors, k.epoch, func(session uint) error {
		k.store.objects.Add(-1)
		return k.store.destroy(session, k.handle)
	})
	k.epoch = 0
	if errors.Is(err, keystore.ErrBusy) {
		return err
	}
	return nil // it is gone: destroyed, or dead with its session
}

// use runs op with the handle on a session of the pool. A closing of the key
// waits for it.
func (k *object) use(p *pool, op func(session, handle uint) error) error {
	handle, epoch, err := k.acquire()
	if err != nil {
		return err
	}
	defer k.release()
	return k.store.on(p, epoch, func(session uint) error { return op(session, handle) })
}

// run is use on a pooled session, and once more after a recovery.
func (k *object) run(op func(session, handle uint) error) error {
	return k.store.attempt(func() error { return k.use(k.store.sessions, op) }, k)
}

func (k *object) acquire() (handle uint, epoch uint64, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || k.store.isClosed() {
		return 0, 0, errClosed
	}
	if k.epoch != k.store.epoch.Load() {
		if err := k.restore(); err != nil {
			return 0, 0, err
		}
	}
	k.users++
	return k.handle, k.epoch, nil
}

func (k *object) release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.users--
	if k.closed && k.users == 0 {
		// Nobody is left to tell: the object goes with its session at last.
		_ = k.dispose()
	}
}

// restore gets a new handle. The caller holds k.mu.
func (k *object) restore() error {
	switch {
	case k.label != "":
		p, err := k.store.findVersion(k.label, k.version)
		if err != nil {
			return err
		}
		k.handle, k.epoch = p.handle, p.epoch
		return nil
	case k.wrapped != nil:
		m, epoch, err := k.store.unwrapSealed(k.algorithm, k.kek, k.wrapped)
		if err != nil {
			return err
		}
		k.handle, k.epoch = m.handle, epoch
		return nil
	}
	return fmt.Errorf("hsm: the token was opened anew and the %v key was in the old one only: %w", k.algorithm, keystore.ErrLost)
}

// forget drops a handle that the token does not know any more, if there is a
// way to get another one.
func (k *object) forget(epoch uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.label == "" && k.wrapped == nil {
		return false
	}
	if k.epoch == epoch {
		k.epoch = 0
		if k.label != "" {
			k.store.outdate(k.label)
		} else {
			k.store.objects.Add(-1)
		}
	}
	return true
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
