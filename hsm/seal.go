package hsm

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// sealing returns the algorithm of the key that seals keys of algorithm a.
func sealing(a keystore.Algorithm) (keystore.Algorithm, error) {
	if role := a.SealedBy(); role != "" {
		return role.Algorithm(), nil
	}
	if a == keystore.AESUnwrap128 || a == keystore.AESReveal128 {
		return 0, fmt.Errorf("hsm: seal %v: anyone who has the PIN could unseal it without the limits on what it unwraps, and decrypt recorded traffic: provision it: %w", a, errors.ErrUnsupported)
	}
	return 0, fmt.Errorf("hsm: seal %v: a private key does not leave the token, not even sealed: provision it: %w", a, errors.ErrUnsupported)
}

// Seal wraps k under the sealing key of its algorithm, and locks it.
func (s *Store) Seal(k keystore.Key, context []byte) ([]byte, error) {
	own, err := s.own(k)
	if err != nil {
		return nil, err
	}
	if err := own.leave(true); err != nil {
		return nil, err
	}
	blob, err := sealObject(s, own, context)
	if errors.Is(err, keystore.ErrNotFound) { // another program destroyed the version that seals
		s.rings.outdateSealing(own.algorithm)
		blob, err = sealObject(s, own, context)
	}
	if own.algorithm.Secret() {
		if err := own.lock(); err != nil {
			return nil, err
		}
	}
	return blob, s.recovery.explain(err)
}

func sealObject(s *Store, own *object, context []byte) ([]byte, error) {
	a, err := sealing(own.algorithm)
	if err != nil {
		return nil, err
	}
	kek, err := newestSealing(s, a)
	if err != nil {
		return nil, err
	}
	defer kek.Close()
	wrapped, err := wrapKeyUnder(kek, own, kek.form)
	if err != nil {
		return nil, err
	}
	blob, err := sealedBy(s, kek, own.algorithm, wrapped, context)
	if err != nil {
		return nil, err
	}
	own.mu.Lock()
	defer own.mu.Unlock()
	own.wrapped, own.form, own.kek = wrapped, kek.form, kek.version
	return blob, nil
}

// sealedBy is the sealed form of a key that a sealing key wrapped.
func sealedBy(s *Store, kek *object, a keystore.Algorithm, wrapped, context []byte) (blob []byte, err error) {
	sealed := keystore.Sealed{Algorithm: a, KEKVersion: kek.version, Form: kek.form.id, Wrapped: wrapped}
	if sealed.Tag, err = s.tag(sealed, context); err != nil {
		return nil, err
	}
	return sealed.Bytes(), nil
}

// newestSealing returns the version of a sealing key that seals: the newest, or the one
// that was chosen. A version that the MAC key does not have yet cannot: a rotation is
// under way, or was cut off.
func newestSealing(s *Store, a keystore.Algorithm) (*object, error) {
	label, macLabel := keystore.SealingLabel(s.inspector.prefix, a), keystore.SealingLabel(s.inspector.prefix, keystore.SealMAC256)
	keks, err := s.rings.ring(label)
	if err != nil {
		return nil, err
	}
	macs, err := s.rings.ring(macLabel)
	if err != nil {
		return nil, err
	}
	most := s.rings.choice(label)
	for _, v := range keks {
		partner := func(m version) bool { return m.number == v.number }
		if v.number <= most && slices.ContainsFunc(macs, partner) {
			return v.handleIn(s), nil
		}
	}
	return nil, fmt.Errorf("hsm: %s and %s have no version in common: %w", label, macLabel, keystore.ErrNotFound)
}

// outdateSealing has the keys that seal keys of algorithm a looked for again.
func (r *rings) outdateSealing(a keystore.Algorithm) {
	if which, err := sealing(a); err == nil {
		r.outdate(keystore.SealingLabel(r.inspector.prefix, which))
		r.outdate(keystore.SealingLabel(r.inspector.prefix, keystore.SealMAC256))
	}
}

// choice is the newest version that may seal.
func (r *rings) choice(label string) uint32 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return cmp.Or(r.chosen[label], math.MaxUint32)
}

// sealingKey returns a version of a sealing key. One that is newer than those that are known is
// looked for each time.
func sealingKey(s *Store, a keystore.Algorithm, version uint32) (*object, error) {
	label := keystore.SealingLabel(s.inspector.prefix, a)
	ring, err := s.rings.ring(label)
	if err != nil {
		return nil, err
	}
	if version > ring[0].number {
		s.rings.outdate(label) // another program may have made a newer one
	}
	v, found, err := s.rings.search(label, version)
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, fmt.Errorf("hsm: %s has no version %d: %w", label, version, keystore.ErrForeign)
	}
	return v.handleIn(s), nil
}

// tag authenticates a sealed key with the MAC key of the same version.
func (s *Store) tag(sealed keystore.Sealed, context []byte) ([]byte, error) {
	k, err := sealingKey(s, keystore.SealMAC256, sealed.KEKVersion)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	return k.sum(pkcs11.CKM_SHA256_HMAC, sealed.Authenticated(context), 32)
}

// authentic verifies the tag of a sealed key.
func authentic(s *Store, sealed keystore.Sealed, context []byte) error {
	k, err := sealingKey(s, keystore.SealMAC256, sealed.KEKVersion)
	if err != nil {
		return err
	}
	defer k.Close()
	_, err = keystore.Verify(macKey{k}, nil, sealed.Authenticated(context), sealed.Tag)
	return err
}

// Unseal verifies the blob, and only then unwraps it.
func (s *Store) Unseal(a keystore.Algorithm, blob, context []byte) (keystore.Key, error) {
	k, err := verified(s, a, blob, context)
	if err != nil {
		return nil, err
	}
	if err := s.unwrapSealed(k, k); err != nil {
		return nil, err
	}
	return k.typed(), nil
}

// verified returns the key of a sealed one that was sealed here, not unwrapped yet.
func verified(s *Store, a keystore.Algorithm, blob, context []byte) (*object, error) {
	if s.isClosed() {
		return nil, errClosed
	}
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		return nil, err
	}
	if _, err := sealing(a); err != nil || sealed.Algorithm != a || sealed.KEKVersion == 0 {
		return nil, foreign(a)
	}
	switch err := authentic(s, sealed, context); {
	case errors.Is(err, keystore.ErrBadTag):
		return nil, foreign(a)
	case err != nil:
		return nil, s.recovery.explain(err)
	}
	f, known := s.formNamed(sealed.Form, a.Size(), len(sealed.Wrapped))
	if !known {
		return nil, foreign(a)
	}
	return &object{store: s, algorithm: a, locked: true, wrapped: append([]byte(nil), sealed.Wrapped...), form: f, kek: sealed.KEKVersion}, nil
}

func foreign(a keystore.Algorithm) error {
	return fmt.Errorf("hsm: unseal %v: %w", a, keystore.ErrForeign)
}

// unwrapSealed makes the session object own of a sealed key that was verified: its
// tag matched, so the blob is not the cause of a later failure.
func (s *Store) unwrapSealed(own, sealed *object) error {
	which, err := sealing(own.algorithm)
	if err != nil {
		return err
	}
	kek, err := sealingKey(s, which, sealed.kek)
	if err != nil {
		return err
	}
	defer kek.Close()
	var doubts []ref
	err = s.recovery.attempt(func() error { return s.births.unwrapKey(kek, sealed.form, own, sealed.wrapped, &doubts) }, nil, kek)
	s.births.settle(doubts, err)
	return s.recovery.ours(err)
}

// lock makes the token refuse to wrap the key, whoever asks. A key whose lock
// cannot be confirmed is destroyed.
func (k *object) lock() error {
	no, tried := template{}.flag(pkcs11.CKA_EXTRACTABLE, false), false
	err := k.run(func(session, handle uint) error {
		if tried {
			// The failed call may have locked it, and a locked key takes no more changes.
			if m, err := k.store.set(session, handle, nil); err != nil || m.extractable == 0 {
				return err
			}
		}
		tried = true
		m, err := k.store.set(session, handle, no)
		if err == nil && m.extractable != 0 {
			err = fmt.Errorf("hsm: the token kept a key extractable that was sealed: %w", keystore.ErrUnavailable)
		}
		return err
	})
	if err == nil || errors.Is(err, keystore.ErrClosed) || errors.Is(err, keystore.ErrLost) {
		return nil // there is nothing left to lock
	}
	return errors.Join(fmt.Errorf("hsm: a sealed key cannot be locked and is destroyed: %w", err), k.Close())
}
