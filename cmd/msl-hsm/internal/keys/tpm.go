package keys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// MakeIdentity is the next step if a TPM has no identity.
const MakeIdentity = "run msl-hsm tpm init, and msl-hsm tpm enroll"

// A Device is the TPM of a device, with its keys and its identity.
type Device struct {
	device   *tpm.Device
	Store    *tpm.Store
	Identity *identity.Device
}

// IdentityFile returns the path of the identity file, which is beside the file of keys.
func IdentityFile(state string) string { return state + ".identity" }

// TPMURI checks that the key store is a TPM, with a file for its keys.
func TPMURI(c *config.Config) (*tpm.URI, error) {
	if !strings.HasPrefix(c.Keystore.URI, "tpm:") {
		return nil, exit.Usagef("the key store is not a TPM: give --keystore tpm:?state=FILE")
	}
	u, err := tpm.ParseURI(c.Keystore.URI)
	if err != nil {
		return nil, exit.Usagef("key store: %w", err)
	}
	if u.State == "" {
		return nil, exit.Usagef("key store %s names no file for its keys: add state=FILE", c.Keystore.URI)
	}
	return u, nil
}

// openTPM opens the keys in a TPM.
func openTPM(c *config.Config, open func(tpm.Config) (*tpm.Store, error)) (Store, error) {
	if _, err := TPMURI(c); err != nil {
		return nil, err
	}
	pin, err := tpmPIN(c)
	if err != nil {
		return nil, err
	}
	defer pin.Close()
	s, err := open(tpm.Config{URI: c.Keystore.URI, PIN: pin.Bytes()})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// makeTPM opens the keys in a TPM, creating the file of keys if there is none.
func makeTPM(c *config.Config) (Store, error) {
	u, err := TPMURI(c)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(u.State); errors.Is(err, fs.ErrNotExist) {
		return openTPM(c, tpm.Init)
	}
	return openTPM(c, tpm.OpenStore)
}

// OpenDevice opens the TPM. With create it makes the key store if it is missing.
func OpenDevice(c *config.Config, create bool) (*Device, error) {
	u, err := TPMURI(c)
	if err != nil {
		return nil, err
	}
	_, err = os.Stat(u.State)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh && !create {
		return nil, Missing(fmt.Errorf("no keys in the TPM yet, %s is not there: %w", u.State, keystore.ErrNotFound), MakeIdentity)
	}
	pin, err := tpmPIN(c)
	if err != nil {
		return nil, err
	}
	defer pin.Close()
	m := &Device{}
	if m.device, err = tpm.Open(c.Keystore.URI); err != nil {
		return nil, err
	}
	settings := tpm.StoreConfig{State: u.State, SRK: u.SRK, PIN: pin.Bytes()}
	open := m.device.OpenStore
	if fresh && create {
		open = m.device.InitStore
	}
	if m.Store, err = open(settings); err == nil {
		m.Identity, err = identity.Open(m.Store, IdentityFile(u.State))
	}
	if errors.Is(err, keystore.ErrForeign) && !create {
		err = fmt.Errorf("%w; %s", err, MakeIdentity)
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// tpmPIN returns the PIN of the TPM's keys, if they have one.
func tpmPIN(c *config.Config) (*lockedmem.Buffer, error) {
	if c.Keystore.PIN == "" {
		return nil, nil
	}
	return Secret(c.Keystore.PIN, "PIN of the TPM's keys")
}

// Close closes the keys before the TPM.
func (m *Device) Close() error {
	var err error
	if m.Store != nil {
		err = m.Store.Close()
	}
	return errors.Join(err, m.device.Close())
}

// ForMSL returns this machine as package fleet uses it.
func (m *Device) ForMSL() *fleet.Device { return &fleet.Device{Store: m.Store, Identity: m.Identity} }

// HasAES reports whether the TPM can encrypt with AES (TPM2_EncryptDecrypt2).
func (m *Device) HasAES() bool { return m.device.Capabilities().EncryptDecrypt }

// Sessions returns the store for session keys that this process has seen: the TPM, if
// it has AES. random is for those keys elsewhere; nil means the operating system.
func (m *Device) Sessions(random io.Reader) Importing {
	if m.HasAES() {
		return m.Store
	}
	return soft.Config{Rand: random}.New()
}
