package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
	"github.com/msl-hsm/msl-hsm/tpm/hostaes"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// MakeIdentity is the next step if a TPM has no identity.
const MakeIdentity = "run msl-hsm tpm init, and msl-hsm tpm enroll"

// A Device is the TPM of a device, with its keys and its identity.
type Device struct {
	device   *tpm.Device
	Store    *tpm.Store
	Identity *identity.Device
	host     *hostaes.Store // of a TPM without AES, otherwise nil
}

// IdentityFile returns the path of the identity file, which is beside the key file.
func IdentityFile(state string) string { return state + ".identity" }

// TPMURI checks that the key store is a TPM, with a file for its keys.
func TPMURI(c *config.Config) (*tpm.URI, error) {
	if !strings.HasPrefix(c.Keystore.URI, "tpm:") {
		return nil, exit.Usagef("the key store is not a TPM: give --keystore tpm:?state=FILE")
	}
	u, err := tpm.ParseURI(c.Keystore.URI)
	if err != nil {
		return nil, exit.Usagef("key store: %w; write tpm:?state=FILE, or with a TPM other than /dev/tpmrm0 tpm:?state=FILE&device=PATH", err)
	}
	if u.State == "" {
		return nil, exit.Usagef("key store %s names no file for its keys: add state=FILE", c.Keystore.URI)
	}
	return u, nil
}

func openTPM(c *config.Config, open func(*tpm.Device, tpm.StoreConfig) (*tpm.Store, error)) (Store, error) {
	u, err := TPMURI(c)
	if err != nil {
		return nil, err
	}
	pin, err := tpmPIN(c)
	if err != nil {
		return nil, err
	}
	defer pin.Close()
	d, err := OpenTPM(c)
	if err != nil {
		return nil, err
	}
	s, err := open(d, tpm.StoreConfig{State: u.State, SRK: u.SRK, PIN: pin.Bytes(), Owns: true})
	if err != nil {
		return nil, errors.Join(lostKeys(err), d.Close())
	}
	return s, nil
}

// makeTPM opens the keys in a TPM, creating the key file if there is none.
func makeTPM(c *config.Config) (Store, error) {
	u, err := TPMURI(c)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(u.State); errors.Is(err, fs.ErrNotExist) {
		return openTPM(c, (*tpm.Device).InitStore)
	}
	return openTPM(c, (*tpm.Device).OpenStore)
}

// OpenDevice opens the TPM with the keys that InitDevice made.
func OpenDevice(c *config.Config) (*Device, error) {
	u, err := TPMURI(c)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(u.State); errors.Is(err, fs.ErrNotExist) {
		return nil, Missing(fmt.Errorf("no keys in the TPM yet, %s does not exist: %w", u.State, keystore.ErrNotFound), MakeIdentity)
	}
	m, err := openDevice(c, u, (*tpm.Device).OpenStore)
	return m, lostKeys(err)
}

// lostKeys adds the next step to the error of keys that are not in the TPM anymore.
func lostKeys(err error) error {
	if errors.Is(err, keystore.ErrForeign) {
		return fmt.Errorf("%w; %s", err, MakeIdentity)
	}
	return err
}

// openDevice opens the TPM, the keys in it, and the identity.
func openDevice(c *config.Config, u *tpm.URI, open func(*tpm.Device, tpm.StoreConfig) (*tpm.Store, error)) (*Device, error) {
	pin, err := tpmPIN(c)
	if err != nil {
		return nil, err
	}
	defer pin.Close()
	m := &Device{}
	if m.device, err = OpenTPM(c); err != nil {
		return nil, err
	}
	if m.Store, err = open(m.device, tpm.StoreConfig{State: u.State, SRK: u.SRK, PIN: pin.Bytes()}); err == nil {
		if !m.HasAES() {
			m.host = hostaes.New(m.Store)
		}
		m.Identity, err = identity.Open(m.Store, IdentityFile(u.State))
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// OpenTPM opens the TPM without its keys.
func OpenTPM(c *config.Config) (*tpm.Device, error) {
	passwords, err := tpmPasswords(&c.Keystore)
	if err != nil {
		return nil, err
	}
	done := func() {}
	if c.Keystore.Slow != nil {
		done = c.Keystore.Slow("waiting for the TPM, which another program may be using")
	}
	d, err := tpm.Open(c.Keystore.URI)
	done()
	if err != nil {
		return nil, err
	}
	if err := d.SetPasswords(passwords); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// tpmPasswords returns the sources of the passwords of a TPM's hierarchies, which are
// read when needed.
func tpmPasswords(k *config.Keystore) (p tpm.Passwords, err error) {
	for _, source := range []struct {
		name, from string
		to         *string
	}{{"owner", k.Owner, &p.Owner}, {"endorsement", k.Endorsement, &p.Endorsement}, {"lockout", k.Lockout, &p.Lockout}} {
		if source.from == "" {
			continue
		}
		s, err := parseSource(source.from)
		if err != nil {
			return p, exit.Usagef("keystore.%s-password: source of the password: %w", source.name, err)
		}
		*source.to = string(s)
	}
	return p, nil
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
	if m.host != nil {
		err = m.host.Close()
	}
	if m.Store != nil {
		err = errors.Join(err, m.Store.Close())
	}
	return errors.Join(err, m.device.Close())
}

// ForMSL returns this machine in the form that package fleet uses.
func (m *Device) ForMSL() *fleet.Device { return &fleet.Device{Store: m.Store, Identity: m.Identity} }

// HasAES reports whether the TPM can encrypt with AES (TPM2_EncryptDecrypt2).
func (m *Device) HasAES() bool { return m.device.Capabilities().EncryptDecrypt }

// Sessions returns the store for session keys that this process has seen: the TPM or, if
// it has no AES, a store with the encryption keys outside it.
func (m *Device) Sessions() Importing {
	if m.host != nil {
		return m.host
	}
	return m.Store
}
