package tpm

import (
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Lookup finds every version of a provisioned key, newest first.
func (s *Store) Lookup(label string) ([]keystore.Version, error) {
	if err := s.storage.open(); err != nil {
		return nil, err
	}
	ring := s.provisioned.ring(label)
	if len(ring) == 0 {
		return nil, fmt.Errorf("tpm: look up %q: %w", label, keystore.ErrNotFound)
	}
	versions := make([]keystore.Version, len(ring))
	for i, r := range ring {
		k, err := s.provisioned.version(r)
		if err != nil {
			return nil, fmt.Errorf("tpm: look up %q version %d: %w", label, r.Version, err)
		}
		versions[i] = k
	}
	return versions, nil
}

// Create makes the next version of the provisioned key with a label, protected by the PIN
// if the store has one. [SealLabel] is reserved for the algorithm seal-mac. A label with
// a key of another algorithm is [keystore.ErrExists].
func (s *Store) Create(label string, a keystore.Algorithm) (keystore.Version, error) {
	if label == "" || (label == SealLabel) != (a == keystore.SealMAC256) {
		return keystore.Version{}, fmt.Errorf("tpm: a %v key cannot have the label %q: %w", a, label, keystore.ErrWrongKey)
	}
	return s.provisioned.add(label, a, func() (*object, error) { return s.storage.create(a, made, s.pin, nil) })
}

// Destroy removes one version of a provisioned key, or all for version 0, from the state
// file, and from the TPM if it is persistent. Copies of the state file still contain its
// blob, which no other TPM loads.
func (s *Store) Destroy(label string, version uint32) error {
	return s.provisioned.destroy(label, version)
}

// List describes every provisioned key, as its public area proves it.
func (s *Store) List() ([]keystore.Info, error) {
	s.provisioned.ring("") // look whether another process has changed the file
	all := []keystore.Info{}
	for _, r := range s.provisioned.all() {
		all = append(all, r.info())
	}
	if err := s.storage.open(); err != nil { // while they are being listed
		return nil, err
	}
	slices.SortFunc(all, keystore.Info.Compare)
	return all, nil
}

// Persist makes one version of a provisioned key persistent in the TPM, at a handle
// from 0x81000000 to 0x817fffff, so that it need not be loaded before use. A TPM has
// room for at least seven persistent keys. Destroy frees the handle.
func (s *Store) Persist(label string, version uint32, at tpm2.TPMHandle) error {
	return s.provisioned.persist(label, version, at)
}
