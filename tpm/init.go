package tpm

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Init prepares a TPM and makes the state file of a new store. It uses the storage key at
// 0x81000001, or at the handle in the URI's srk, and makes it there from the TCG's ECC
// P-256 template if there is none. The state file pins its public area: an attacker who
// impersonates the TPM at this moment stays trusted. Init also makes the key that binds
// sealed keys to their context. An existing state file is [keystore.ErrExists].
func Init(c Config) (*Store, error) { return c.open((*Device).InitStore) }

// InitStore is Init on a Device, which the caller closes after the store.
func (d *Device) InitStore(c StoreConfig) (*Store, error) {
	if !filepath.IsAbs(c.State) {
		return nil, fmt.Errorf("tpm: the path of the state file %q is not absolute: add ?state=/path to the URI: %w", c.State, keystore.ErrNotFound)
	}
	if _, err := os.Lstat(c.State); err == nil {
		return nil, fmt.Errorf("tpm: state file %s: %w", c.State, keystore.ErrExists)
	}
	st := &state{path: c.State}
	err := d.Do(func(transport.TPM) (err error) {
		st.file.StorageKey, err = d.tpm.provisionStorageKey(cmp.Or(c.SRK, defaultSRK))
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := st.create(); err != nil {
		return nil, err
	}
	s, err := d.openNew(c)
	if err != nil {
		return nil, errors.Join(d.closedParent(st.file.StorageKey, err), os.Remove(c.State)) // so that Init can be repeated
	}
	return s, nil
}

// closedParent explains the error of making a key under a storage key of another program that
// has a password.
func (d *Device) closedParent(parent storageKey, err error) error {
	if !wrongAuth(err) {
		return err
	}
	return d.Do(func(transport.TPM) error {
		return d.tpm.useless(uint32(parent.Handle), fmt.Errorf("it has a password: %w", keystore.ErrWrongKey))
	})
}

// openNew opens a new store and makes its sealing key.
func (d *Device) openNew(c StoreConfig) (*Store, error) {
	s, err := d.OpenStore(c)
	if err != nil {
		return nil, err
	}
	if _, err := s.Create(SealLabel, keystore.SealMAC256); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// checkStorageKey checks that a public area belongs to a storage key that cannot leave
// its TPM and needs no password. RSA keys and other curves are allowed.
func checkStorageKey(public []byte) error {
	if err := checkParent(public); err != nil {
		return err
	}
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err == nil && !p.ObjectAttributes.NoDA {
		err = fmt.Errorf("wrong PINs of other keys lock it, since it lacks the attribute noda: %w", keystore.ErrWrongKey)
	}
	return err
}

// checkParent is checkStorageKey for a key chosen by other programs, which may be subject
// to lockout.
func checkParent(public []byte) error {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return fmt.Errorf("%w: %w", keystore.ErrBadData, err)
	}
	a := p.ObjectAttributes
	if !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.Restricted || !a.Decrypt || a.SignEncrypt {
		return fmt.Errorf("it is not a storage key that stays in the TPM: %w", keystore.ErrWeakKey)
	}
	if !a.UserWithAuth {
		return fmt.Errorf("it asks for a policy: %w", keystore.ErrWrongKey)
	}
	if _, err := tpm2.ImportEncapsulationKey(p); err != nil {
		return fmt.Errorf("%w: %w", keystore.ErrWrongKey, err)
	}
	return nil
}
