package keys

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
	"github.com/msl-hsm/msl-hsm/tpm/makers"
)

// InitDevice opens the TPM with its keys, and makes what is missing: the key file,
// the storage key at its handle, and a new file to replace one whose keys the TPM has
// lost, because it was cleared or, with replace, is another one. tell is called with what
// became of keys that this machine had. Every secret is read at most once.
func InitDevice(c *config.Config, replace bool, tell func(what string)) (*Device, error) {
	u, err := TPMURI(c)
	if err != nil {
		return nil, err
	}
	m, err := openDevice(c, u, func(d *tpm.Device, settings tpm.StoreConfig) (*tpm.Store, error) {
		if _, err := os.Stat(u.State); errors.Is(err, fs.ErrNotExist) {
			return newKeys(d, settings, tell)
		}
		s, err := d.OpenStore(settings)
		if !errors.Is(err, keystore.ErrForeign) {
			return s, err
		}
		if err := mayReplace(d, u, replace, err); err != nil {
			return nil, err
		}
		aside, err := replaceKeys(d, settings)
		if err != nil {
			return nil, err
		}
		tell("the file with the keys that the TPM lost is kept as " + aside)
		return d.OpenStore(settings)
	})
	if err != nil {
		return nil, err
	}
	if err := tpm.KeepStorageKey(m.Store); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// newKeys makes the key file. If there is an identity, there was one before.
func newKeys(d *tpm.Device, settings tpm.StoreConfig, tell func(what string)) (*tpm.Store, error) {
	s, err := d.InitStore(settings)
	if _, missing := os.Stat(IdentityFile(settings.State)); err == nil && missing == nil {
		tell(fmt.Sprintf("the key file %s was missing although this machine has an identity, so a new one was made: "+
			"import pre-shared keys and other keys again, or put back a copy of the old file", settings.State))
	}
	return s, err
}

// EKService returns a function that asks a manufacturer for the certificate of an
// endorsement key, at the place given by the flag --ek-service or else by the
// configuration, or nil if neither names one.
func EKService(c *config.Config, flag string) (func(context.Context, crypto.PublicKey) ([]byte, error), error) {
	text := cmp.Or(flag, string(c.Keystore.EKService))
	if text == "" {
		return nil, nil
	}
	s, err := makers.ParseService(text)
	if err != nil {
		return nil, exit.Usagef("--ek-service: %w", err)
	}
	return s.Ask, nil
}

// mayReplace returns nil if the keys that do not load because of err never will: the TPM was
// cleared, or was replaced on purpose.
func mayReplace(d *tpm.Device, u *tpm.URI, replace bool, err error) error {
	switch why := identity.Diagnose(d, IdentityFile(u.State)); {
	case errors.Is(why, identity.ErrCleared), replace && (why == nil || exit.IsAny(why, identity.ErrOtherTPM, identity.ErrNotInitialized)):
		return nil
	case why != nil && !errors.Is(why, identity.ErrNotInitialized):
		return why
	}
	return fmt.Errorf("%w; to give up these keys, add --replace", err)
}

// replaceKeys makes a new key file to replace one whose keys are lost, and returns
// the old one's new name, which ends in .lost.
func replaceKeys(d *tpm.Device, settings tpm.StoreConfig) (lost string, err error) {
	path := settings.State
	settings.State += ".next"
	if err := os.Remove(settings.State); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by a process that was killed
		return "", err
	}
	s, err := d.InitStore(settings)
	if err != nil {
		return "", err
	}
	defer os.Remove(settings.State)
	if err := s.Close(); err != nil {
		return "", err
	}
	text, err := os.ReadFile(settings.State)
	if err != nil {
		return "", err
	}
	if lost, err = atomicfile.Aside(path, ".lost"); err != nil {
		return "", err
	}
	return lost, atomicfile.Replace(path, text, atomicfile.DefaultMode)
}
