package tpm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Init prepares a TPM and makes the state file of a new store: it uses the
// storage key at 0x81000001, or the handle that the URI's srk names, or makes
// it by the template of the TCG for ECC P-256 and keeps it there; it pins its
// public area, so whoever answers in the place of the TPM at this moment stays
// trusted; and it makes the key that binds sealed keys to their context. A state
// file that is there already is [keystore.ErrExists].
func Init(c Config) (*Store, error) { return c.open((*Device).InitStore) }

// InitStore is Init on a Device, which the caller closes after the store.
func (d *Device) InitStore(c StoreConfig) (*Store, error) {
	if !filepath.IsAbs(c.State) {
		return nil, fmt.Errorf("tpm: state file %q has no absolute path: add ?state=/path to the URI: %w", c.State, keystore.ErrNotFound)
	}
	if _, err := os.Lstat(c.State); err == nil {
		return nil, fmt.Errorf("tpm: state file %s: %w", c.State, keystore.ErrExists)
	}
	handle := c.SRK
	if handle == 0 {
		handle = defaultSRK
	}
	st := &state{path: c.State}
	err := d.Do(func(transport.TPM) (err error) {
		st.file.StorageKey, err = d.tpm.provisionStorageKey(handle)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := st.create(); err != nil {
		return nil, err
	}
	s, err := d.OpenStore(c)
	if err == nil {
		_, err = s.Create(SealLabel, keystore.SealMAC256)
	}
	if err != nil {
		if s != nil {
			s.Close()
		}
		return nil, errors.Join(err, os.Remove(c.State)) // else Init could not be done again
	}
	return s, nil
}

// checkStorageKey asks that a public area is that of a storage key that cannot
// leave its TPM and needs no password. RSA keys and other curves are as good as
// our own template.
func checkStorageKey(public []byte) error {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return fmt.Errorf("%w: %w", keystore.ErrBadData, err)
	}
	a := p.ObjectAttributes
	if !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.Restricted || !a.Decrypt || a.SignEncrypt {
		return fmt.Errorf("it is no storage key that stays in the TPM: %w", keystore.ErrWeakKey)
	}
	if !a.UserWithAuth || !a.NoDA {
		return fmt.Errorf("it asks for a policy or a password: %w", keystore.ErrWrongKey)
	}
	if _, err := tpm2.ImportEncapsulationKey(p); err != nil {
		return fmt.Errorf("%w: %w", keystore.ErrWrongKey, err)
	}
	return nil
}

// Persist keeps one version of a provisioned key in the TPM at a persistent
// handle (0x81000000 to 0x817fffff), so that it is there without the state
// file's blob and is not loaded before use. A TPM has room for at least seven.
// Destroy frees the handle.
func (s *Store) Persist(label string, version uint32, at tpm2.TPMHandle) error {
	s.admin.Lock()
	defer s.admin.Unlock()
	if err := s.refresh(); err != nil {
		return err
	}
	r, err := s.find(label, version)
	if err != nil {
		return err
	}
	if at>>24 != 0x81 || r.Handle != 0 {
		return fmt.Errorf("tpm: persist %q version %d at %#x: not a persistent handle, or it has one: %w", label, version, uint32(at), keystore.ErrExists)
	}
	err = s.do(func() error {
		if err := s.device.tpm.load(r.object); err != nil {
			return err
		}
		return s.device.tpm.evictControl(r.object.entity(), uint32(at))
	})
	if err != nil {
		return err
	}
	err = s.state.change(func(f *stateFile) {
		for i, k := range f.Keys {
			if k.Label == label && k.Version == version {
				f.Keys[i].Handle = handle(at)
			}
		}
	})
	return s.do(func() error {
		if err != nil { // not to be found again: take it out
			return errors.Join(err, s.device.tpm.evictControl(entity{handle: uint32(at), name: r.object.name}, uint32(at)))
		}
		s.device.resources.unload(r.object)
		r.Handle, r.object.persistent = handle(at), uint32(at)
		return nil
	})
}

// find returns one version of a provisioned key.
func (s *Store) find(label string, version uint32) (*record, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	for _, r := range s.known(label) {
		if r.Version == version {
			return r, nil
		}
	}
	return nil, fmt.Errorf("tpm: key %q version %d: %w", label, version, keystore.ErrNotFound)
}
