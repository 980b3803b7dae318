package tpm

import (
	"crypto/fips140"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An ImportParent is a storage key for one key exchange: a peer wraps session keys for
// its public half with [Duplicate], and they enter the TPM without this process seeing
// them. Its blob is in the memory of the process, and part of the blobs of sealed keys
// imported through it. It decrypts only what was wrapped in this exchange.
//
// A peer must be sure that the public half belongs to a key in a TPM: an attestation
// key certifies it ([ImportParent.With] and TPM2_Certify), and the peer checks
// FixedTPM and FixedParent in its public area.
type ImportParent struct {
	store  *Store
	object *object
	closed atomic.Bool
}

// NewImportParent makes a storage key (ECC P-256) for one exchange.
func (s *Store) NewImportParent() (*ImportParent, error) {
	if err := s.storage.open(); err != nil {
		return nil, err
	}
	t, err := exchangeParent(s.storage.key.public)
	if err != nil {
		return nil, err
	}
	p := &ImportParent{store: s}
	err = s.storage.do(func() (err error) {
		p.object, err = s.storage.device.tpm.create(s.storage.key, tpm2.Marshal(t), nil, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Public returns the public area (TPMT_PUBLIC) for the peer.
func (p *ImportParent) Public() []byte { return slices.Clone(p.object.public) }

// With lets f use the key in go-tpm commands, like [Store.With].
func (p *ImportParent) With(f func(t transport.TPM, key tpm2.NamedHandle) error) error {
	return p.store.storage.lend(p.object, p.check, f)
}

func (p *ImportParent) check() error {
	if p.closed.Load() {
		return fmt.Errorf("tpm: import parent: %w", keystore.ErrClosed)
	}
	return p.store.storage.open()
}

// Import makes a session key from data that a peer wrapped with [Duplicate]. The public
// area must be exactly that of a duplicated key for a: with another policy, the key could
// leave the TPM again. Data that does not decrypt, or that is another kind of key, is
// [keystore.ErrBadData]. The key can be sealed once.
func (p *ImportParent) Import(a keystore.Algorithm, d keystore.Duplicated) (keystore.Key, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if !sealable(a) {
		return nil, fmt.Errorf("tpm: import %v: it is not a session key for data: %w", a, keystore.ErrWeakKey)
	}
	o, err := p.store.storage.importDuplicate(p.object, p.check, a, d)
	if err != nil {
		return nil, err
	}
	return p.store.sessionKeys.adopt(a, o, false)
}

// ImportDuplicate makes the next version of the provisioned key with a label from data
// that a peer wrapped with [Duplicate] for the storage key of this store
// ([Store.StorageKey]). The algorithms are those of Duplicate. The public area and the
// data are checked as in [ImportParent.Import]; data for another TPM is
// [keystore.ErrBadData]. The key has no PIN.
//
// The peer had the bytes of the key, so List reports that it was not made here.
// Nothing proves who wrapped it: the caller must know where d comes from.
func (s *Store) ImportDuplicate(label string, a keystore.Algorithm, d keystore.Duplicated) (keystore.Version, error) {
	if label == "" || label == SealLabel || !duplicable(a) {
		return keystore.Version{}, fmt.Errorf("tpm: no %v key of a peer goes by the label %q: %w", a, label, keystore.ErrWrongKey)
	}
	return s.provisioned.add(label, a, func() (*object, error) {
		return s.storage.importDuplicate(s.storage.key, s.storage.open, a, d)
	})
}

// duplicable reports whether a peer may provide keys of an algorithm: session keys for
// data, and pre-shared wrapping keys, which are provisioned.
func duplicable(a keystore.Algorithm) bool { return sealable(a) || a == keystore.AESReveal128 }

// refusedData reports whether the TPM refused the data.
func refusedData(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.is(tpm2.TPMRCIntegrity, tpm2.TPMRCSize, tpm2.TPMRCValue, tpm2.TPMRCKey, tpm2.TPMRCECCPoint,
		tpm2.TPMRCBinding, tpm2.TPMRCInsufficient, tpm2.TPMRCAttributes, tpm2.TPMRCType, tpm2.TPMRCKeySize, tpm2.TPMRCHash)
}

// importDuplicate is TPM2_Import (TPM 2.0 Library, Part 3, clause 13.3), without
// an inner wrapper.
func (l loadedKey) importDuplicate(dup keystore.Duplicated) ([]byte, error) {
	params := append16(nil, nil) // no key of an inner wrapper
	params = append16(params, dup.Public)
	params = append16(params, dup.Duplicate)
	params = append16(params, dup.Seed)
	params = append(params, 0, byte(tpm2.TPMAlgNull))
	r, err := l.tpm.run(command{code: ccImport, handles: []entity{l.entity}, session: l.session, params: params})
	if errors.Is(err, tpm2.TPMRCFailure) { // the seed, below an RSA key
		return nil, l.undecrypted("TPM2_Import")
	}
	return first(ccImport, r, err)
}

// importPrivate lets the TPM unwrap a key that was wrapped for a storage key.
func (p *provisionedKeys) importPrivate(parent *object, f *TSS2) (private []byte, err error) {
	err = p.storage.use(parent, p.storage.open, func(l loadedKey) (err error) {
		private, err = l.importDuplicate(keystore.Duplicated{Public: f.Public, Duplicate: f.Private, Seed: f.Seed})
		return err
	})
	switch {
	case refusedData(err) || errors.Is(err, keystore.ErrBadData):
		return nil, stray(err)
	case err != nil:
		return nil, unloaded(err)
	}
	return private, nil
}

// Close flushes the key; nothing more can be imported. Keys imported through it stay.
func (p *ImportParent) Close() error {
	if !p.closed.Swap(true) {
		p.store.storage.device.release(p.object)
	}
	return nil
}

// Duplicate wraps the bytes of a key for a storage key with the public area parent
// (TPMT_PUBLIC). It works in software, on the side that has the bytes, and does not check
// that the storage key is in a TPM: see [ImportParent]. The algorithms are those of
// session keys, and AESReveal128 for [Store.ImportDuplicate]. The caller must wipe raw. Under
// GODEBUG=fips140=only the error is [errors.ErrUnsupported]: it forbids the cipher.
func Duplicate(parent []byte, a keystore.Algorithm, raw []byte) (keystore.Duplicated, error) {
	if fips140.Enforced() {
		return keystore.Duplicated{}, fmt.Errorf("tpm: duplicate: GODEBUG=fips140=only forbids AES-CFB, by which keys for TPMs are encrypted: use fips140=on: %w", errors.ErrUnsupported)
	}
	if !duplicable(a) || len(raw) != a.Size() {
		return keystore.Duplicated{}, fmt.Errorf("tpm: duplicate %d bytes as %v: %w", len(raw), a, keystore.ErrBadData)
	}
	if err := checkStorageKey(parent); err != nil {
		return keystore.Duplicated{}, fmt.Errorf("tpm: duplicate: %w", err)
	}
	storage, err := tpm2.Unmarshal[tpm2.TPMTPublic](parent)
	if err != nil {
		return keystore.Duplicated{}, fmt.Errorf("tpm: duplicate: %w: %w", keystore.ErrBadData, err)
	}
	to, err := tpm2.ImportEncapsulationKey(storage)
	if err != nil {
		return keystore.Duplicated{}, fmt.Errorf("tpm: duplicate: %w: %w", keystore.ErrBadData, err)
	}
	public, sensitive, err := assemble(a, raw)
	if err != nil {
		return keystore.Duplicated{}, err
	}
	defer clear(sensitive)
	duplicate, seed, err := tpm2.CreateDuplicate(rand.Reader, to, nameOf(public), sensitive)
	if err != nil {
		return keystore.Duplicated{}, fmt.Errorf("tpm: duplicate: %w", err)
	}
	return keystore.Duplicated{Public: public, Duplicate: duplicate, Seed: seed}, nil
}

// assemble makes the public area and the TPMT_SENSITIVE of a secret key. The unique
// part of the public area binds them: it is the hash of a seed and the key (TPM 2.0
// Library, Part 1, clause 27.5.3).
func assemble(a keystore.Algorithm, raw []byte) (public, sensitive []byte, err error) {
	t, err := template(a, duplicated, false)
	if err != nil {
		return nil, nil, err
	}
	seed := make([]byte, sha256.Size)
	rand.Read(seed) // never fails
	h := sha256.New()
	h.Write(seed)
	h.Write(raw)
	t.Unique = tpm2.NewTPMUPublicID(t.Type, &tpm2.TPM2BDigest{Buffer: h.Sum(nil)})
	sensitive = binary.BigEndian.AppendUint16(nil, uint16(t.Type))
	sensitive = append16(append16(append16(sensitive, nil), seed), raw)
	return tpm2.Marshal(t), sensitive, nil
}
