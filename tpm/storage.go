package tpm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A storage is the storage key of a store. Its methods use it and the keys under it, and
// retry once if the TPM lost what was loaded.
type storage struct {
	device *Device
	key    *object
	closed atomic.Bool

	refused error // the TPM's error about the PIN; belongs to the goroutine with the turn
}

// openStorage loads the storage key of a state file, and proves in a session that the TPM
// holds it.
func openStorage(d *Device, srk uint32, k storageKey) (*storage, error) {
	s := &storage{device: d}
	places := []uint32{uint32(k.Handle)}
	if srk != 0 && srk != places[0] {
		places = []uint32{srk, places[0]}
	}
	err := d.Do(func(transport.TPM) (err error) {
		if s.key, err = d.tpm.storageKey(k.Public, places...); err == nil {
			_, err = d.tpm.session(s.key)
		}
		return err
	})
	return s, err
}

// open returns [keystore.ErrClosed] if the store is closed.
func (s *storage) open() error {
	if s.closed.Load() {
		return errStoreClosed()
	}
	return nil
}

func errStoreClosed() error { return fmt.Errorf("tpm: store: %w", keystore.ErrClosed) }

// do runs f with exclusive use of the TPM, and again if the TPM lost what was loaded or
// the connection broke: running f twice must be harmless.
func (s *storage) do(f func() error) error {
	for again := true; ; again = false {
		err := s.device.Do(func(transport.TPM) error {
			err := f()
			if !again {
				return err
			}
			if gone(err) {
				s.device.resources.discard()
				return f()
			}
			if s.device.tpm.misplaced(err) {
				return f()
			}
			return err
		})
		var e *linkError
		if !again || !errors.As(err, &e) || e.timeout() {
			return err
		}
	}
}

// use runs f with a key loaded. check returns an error if the key was closed while
// use waited for the TPM.
func (s *storage) use(o *object, check func() error, f func(loadedKey) error) error {
	return s.do(func() error {
		if err := check(); err != nil {
			return err
		}
		if o.auth.Len() > 0 && s.refused != nil {
			return s.refused
		}
		if err := s.device.tpm.load(o); err != nil {
			return err
		}
		session, err := s.device.tpm.session(root(o))
		if err != nil {
			return err
		}
		err = f(loadedKey{tpm: s.device.tpm, entity: o.entity(), session: session})
		if o.auth.Len() > 0 && (errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth)) {
			s.refused = err
		}
		return err
	})
}

// lend lets f use an object in go-tpm commands.
func (s *storage) lend(o *object, check func() error, f func(t transport.TPM, key tpm2.NamedHandle) error) error {
	return s.device.Do(func(t transport.TPM) error {
		if err := check(); err != nil {
			return err
		}
		if err := s.device.tpm.load(o); err != nil {
			return err
		}
		return f(t, o.named())
	})
}

// create makes a key under the storage key. raw is the key itself if it comes from
// outside, otherwise empty.
func (s *storage) create(a keystore.Algorithm, from origin, pin *lockedmem.Buffer, raw []byte) (o *object, err error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	t, err := template(a, from, pin.Len() > 0)
	if err != nil {
		return nil, err
	}
	if err := s.device.tpm.caps.supports(a); err != nil {
		return nil, err
	}
	err = s.do(func() (err error) {
		o, err = s.device.tpm.create(s.key, tpm2.Marshal(t), pin, raw)
		return err
	})
	if errors.Is(err, tpm2.TPMRCValue) {
		err = fmt.Errorf("tpm: this TPM does not support %v keys: %w: %w", a, errors.ErrUnsupported, err)
	}
	if err != nil {
		return nil, err
	}
	_, err = inspect(a, o.public)
	return o, err
}

// persist makes a key persistent at a handle.
func (s *storage) persist(o *object, at uint32) error {
	return s.do(func() error {
		if err := s.device.tpm.load(o); err != nil {
			return err
		}
		return s.device.tpm.evictControl(o.entity(), at)
	})
}

// freeHandle frees the handle of a persistent key.
func (s *storage) freeHandle(e entity) error {
	return s.do(func() error { return s.device.tpm.evictControl(e, e.handle) })
}

// try checks that the TPM loads a key.
func (s *storage) try(o *object) error {
	return s.do(func() error {
		defer s.device.resources.unload(o)
		return s.device.tpm.load(o)
	})
}

// importDuplicate imports a key under a parent; check reports whether that is still open.
func (s *storage) importDuplicate(parent *object, check func() error, a keystore.Algorithm, d keystore.Duplicated) (*object, error) {
	if err := s.device.tpm.caps.supports(a); err != nil {
		return nil, err
	}
	e, err := inspect(a, d.Public)
	if err != nil {
		return nil, err
	}
	if e.from != duplicated || e.pin {
		return nil, fmt.Errorf("tpm: import %v: the attributes are not those of a key that a peer wraps: %w", a, keystore.ErrWeakKey)
	}
	o := newObject(parent, slices.Clone(d.Public), nil)
	err = s.use(parent, check, func(l loadedKey) (err error) {
		o.private, err = l.importDuplicate(d)
		return err
	})
	if err == nil {
		err = s.try(o) // now the TPM checks the sizes
	}
	if refusedData(err) {
		err = fmt.Errorf("tpm: import %v: %w: %w", a, keystore.ErrBadData, err)
	}
	return o, err
}

// rootNamed returns the storage key with a Name. The caller must have the turn.
func (s *storage) rootNamed(name []byte) (*object, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	if len(name) == 0 || bytes.Equal(name, s.key.name) {
		return s.key, nil
	}
	for _, o := range s.device.tpm.roots {
		if bytes.Equal(name, o.name) {
			return o, nil
		}
	}
	return s.device.tpm.rootNamed(name)
}
