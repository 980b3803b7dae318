package tpm

import (
	"crypto/hmac"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// SealLabel is the label of the key that binds sealed keys to their context.
// Init makes its first version; Create makes the next ones.
const SealLabel = keystore.DefaultPrefix + "-" + string(keystore.RoleSealMAC)

// Seal returns the blob of a session key, which only this TPM loads, with a tag that
// binds it to context, and locks the key. The blob names the version of the sealing key
// that made the tag; no wrapping key is needed, since a TPM's blobs are wrapped already.
func (s *Store) Seal(k keystore.Key, context []byte) ([]byte, error) {
	own, err := ownKey(s, k)
	if err != nil {
		return nil, err
	}
	if err := own.leave(); err != nil {
		return nil, err
	}
	if !sealable(own.algorithm) {
		return nil, fmt.Errorf("tpm: seal %v: a key that signs, decrypts or reveals could be unsealed later to decrypt recorded traffic or sign in its owner's name: provision it instead: %w", own.algorithm, errors.ErrUnsupported)
	}
	return sealObject(s, own.algorithm, own.object, context)
}

// sealObject returns the blob of an object, with a tag that binds it to context.
func sealObject(s *Store, a keystore.Algorithm, o *object, context []byte) ([]byte, error) {
	ring := s.provisioned.ring(SealLabel)
	if len(ring) == 0 {
		return nil, fmt.Errorf("tpm: sealing key %s: %w", SealLabel, keystore.ErrNotFound)
	}
	sealed := keystore.Sealed{Algorithm: a, KEKVersion: ring[0].Version, Wrapped: chain(o)}
	tag, err := tagOf(s.storage, ring[0], sealed, context)
	if err != nil {
		return nil, err
	}
	sealed.Tag = tag
	return sealed.Bytes(), nil
}

// sealable reports whether keys of an algorithm can be sealed: session keys for data,
// but not keys that sign, unwrap, decrypt or reveal.
func sealable(a keystore.Algorithm) bool { return a.SealedBy() == keystore.RoleSealSession }

// Unseal makes a locked key from a blob that Seal returned for the same context. A blob
// with a wrong tag is [keystore.ErrForeign]. The key is loaded when it is used; if the
// TPM no longer loads it, that is [keystore.ErrForeign].
func (s *Store) Unseal(a keystore.Algorithm, blob, context []byte) (keystore.Key, error) {
	o, err := openSealed(s, a, blob, context)
	if err != nil {
		return nil, err
	}
	if _, err := inspect(a, o.public); err != nil {
		return nil, errForeign(a)
	}
	return s.sessionKeys.adopt(a, o, true)
}

// openSealed returns the object of a blob that sealObject made.
func openSealed(s *Store, a keystore.Algorithm, blob, context []byte) (*object, error) {
	if err := s.storage.open(); err != nil {
		return nil, err
	}
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		return nil, err
	}
	if sealed.Algorithm != a || !sealable(a) {
		return nil, errForeign(a)
	}
	authentic, err := authentic(s, sealed, context)
	if err != nil {
		return nil, err
	}
	o := unchain(s.storage.key, sealed.Wrapped)
	if !authentic || o == nil {
		return nil, errForeign(a)
	}
	return o, nil
}

// authentic reports whether a sealing key of this store made the tag.
func authentic(s *Store, sealed keystore.Sealed, context []byte) (bool, error) {
	for _, r := range s.provisioned.ring(SealLabel) {
		if r.Version != sealed.KEKVersion {
			continue
		}
		tag, err := tagOf(s.storage, r, sealed, context)
		return err == nil && hmac.Equal(tag, sealed.Tag), err
	}
	return false, nil
}

// tagOf computes the tag that binds a sealed key to its context.
func tagOf(s *storage, r *record, sealed keystore.Sealed, context []byte) ([]byte, error) {
	return macKey{&key{storage: s, algorithm: keystore.HMACSHA256, object: r.object, record: r}}.Sum(sealed.Authenticated(context))
}

func errForeign(a keystore.Algorithm) error {
	return fmt.Errorf("tpm: unseal %v: %w", a, keystore.ErrForeign)
}

// maxChain is the maximum number of keys in a chain: a key, and the ImportParent above
// it.
const maxChain = 2

// chain returns the blobs from below the storage key down to o.
func chain(o *object) []byte {
	if o.parent == nil {
		return nil
	}
	return append16(append16(chain(o.parent), o.public), o.private)
}

// unchain returns the lowest key of a chain below a storage key, or nil if b is not a
// chain.
func unchain(root *object, b []byte) *object {
	o := root
	for n := 0; len(b) > 0; n++ {
		public, rest, ok := cut16(b)
		private, rest, ok2 := cut16(rest)
		if !ok || !ok2 || n == maxChain {
			return nil
		}
		o, b = newObject(o, public, private), rest
	}
	if o == root {
		return nil
	}
	return o
}
