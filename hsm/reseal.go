package hsm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

var _ keystore.Resealer = (*Store)(nil)

// Reseal seals a sealed key again, with the version that seals now. The error is
// [keystore.ErrLocked] if the old sealing key is not for trusted wrapping, or the version
// that seals now is not trusted: then the key cannot leave the token again. A key that the
// current version sealed is returned unchanged.
func (s *Store) Reseal(blob, context []byte) ([]byte, error) {
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		return nil, err
	}
	k, err := verified(s, sealed.Algorithm, blob, context)
	if err != nil {
		return nil, err
	}
	a, err := sealing(k.algorithm)
	if err != nil {
		return nil, err
	}
	kek, err := newestSealing(s, a)
	if err != nil {
		return nil, s.recovery.explain(err)
	}
	defer kek.Close()
	if kek.version == k.kek {
		return bytes.Clone(blob), nil
	}
	wrapped, err := wrapAgain(s, kek, k)
	if err != nil {
		return nil, s.recovery.explain(err)
	}
	again, err := sealedBy(s, kek, k.algorithm, wrapped, context)
	if err != nil {
		return nil, s.recovery.explain(err)
	}
	if err := opensAlike(s, k, again, context); err != nil {
		return nil, err
	}
	return again, nil
}

// wrapAgain wraps a sealed key under another sealing key.
func wrapAgain(s *Store, kek, sealed *object) ([]byte, error) {
	a, err := sealing(sealed.algorithm)
	if err != nil {
		return nil, err
	}
	old, err := sealingKey(s, a, sealed.kek)
	if err != nil {
		return nil, err
	}
	defer old.Close()
	switch {
	case !old.sealer.reseals:
		return nil, fmt.Errorf("hsm: keys sealed by %s version %d can never leave the token again: %w", old.label, old.version, keystore.ErrLocked)
	case !kek.sealer.trusted:
		return nil, fmt.Errorf("hsm: %s version %d is not trusted (CKA_TRUSTED), so sealed keys cannot be moved to it: %w", kek.label, kek.version, keystore.ErrLocked)
	}
	leaving := &object{store: s, algorithm: sealed.algorithm, wrapped: sealed.wrapped, form: sealed.form, kek: sealed.kek}
	if err := s.unwrapSealed(leaving, leaving); err != nil {
		return nil, err
	}
	defer leaving.Close()
	if err := boundToTrusted(leaving); err != nil {
		return nil, err
	}
	return wrapKeyUnder(kek, leaving, kek.form)
}

// boundToTrusted refuses a key that may leave under any key.
func boundToTrusted(k *object) error {
	return k.run(func(session, handle uint) error {
		b, err := k.store.attribute(session, handle, pkcs11.CKA_WRAP_WITH_TRUSTED)
		if err == nil && !bytes.Equal(b, []byte{1}) {
			err = fmt.Errorf("hsm: the token did not bind a key to trusted wrapping keys (CKA_WRAP_WITH_TRUSTED): %w", keystore.ErrWeakKey)
		}
		return err
	})
}

// opensAlike refuses what does not open as the same key: the old form is about to be given up.
func opensAlike(s *Store, old *object, blob, context []byte) error {
	k, err := verified(s, old.algorithm, blob, context)
	if err != nil {
		return err
	}
	var marks [2][]byte
	for i, one := range []*object{old, k} {
		err := s.unwrapSealed(one, one)
		if err == nil {
			marks[i], err = markOfSession(one)
		}
		if err = errors.Join(err, one.Close()); err != nil {
			return s.recovery.explain(err)
		}
	}
	if !bytes.Equal(marks[0], marks[1]) {
		return fmt.Errorf("hsm: the token resealed a %v key as a different one: %w", old.algorithm, keystore.ErrUnavailable)
	}
	return nil
}

// markOfSession is what an unsealed key makes of a constant: of a wrapping key, a constant key
// that it wraps.
func markOfSession(k *object) (mark []byte, err error) {
	if k.algorithm == keystore.AESWrap128 {
		return wrapKey{k}.WrapData(make([]byte, 16))
	}
	err = k.run(func(session, handle uint) error {
		e := evidence{handle: handle}
		e.Algorithm = k.algorithm
		mark, err = k.store.inspector.markValue(session, e)
		return err
	})
	return mark, err
}
