package cli

import (
	"cmp"
	"errors"
	"io/fs"
	"os"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// configure reads the configuration and applies the flags common to all verbs.
func (p *program) configure() (*config.Config, error) {
	c := p.defaults()
	c.Keystore.Slow = slowOn(p.stderr)
	path, err := p.configPath()
	if err != nil {
		return nil, err
	}
	if path != "" {
		read := c.Read
		if path == configHere && chosenConfig(p.flags.config) == "" {
			read = c.ReadFound
		}
		if err := read(path); err != nil {
			return nil, exit.WithCode(err, exit.Usage)
		}
	}
	for _, secret := range []struct {
		flag, source string
		setting      *string
	}{
		{"--pin", p.flags.pin, &c.Keystore.PIN}, {"--owner-password", p.flags.owner, &c.Keystore.Owner},
		{"--endorsement-password", p.flags.endorsement, &c.Keystore.Endorsement}, {"--lockout-password", p.flags.lockout, &c.Keystore.Lockout},
	} {
		if err := notFromEnvironment(secret.flag, secret.source); err != nil {
			return nil, err
		}
		config.Override(secret.setting, secret.source)
	}
	c.Keystore.UseOnly(p.flags.keystore)
	if err := c.Keystore.UseSoftHSM(p.flags.softhsm, p.flags.keystore); err != nil {
		return nil, err
	}
	if here, err := os.Getwd(); err == nil {
		c.Keystore.URI = config.Settled(here, c.Keystore.URI)
	}
	return c, nil
}

// configHere is the configuration file that is used where it is the working directory.
const configHere = "msl-hsm.yaml"

// chosenConfig returns the configuration file that the caller names by a flag or otherwise, or "".
func chosenConfig(flag string) string { return cmp.Or(flag, os.Getenv("MSL_HSM_CONFIG")) }

// configPath finds the configuration file; it may be missing unless a flag names it.
func (p *program) configPath() (string, error) {
	if named := chosenConfig(p.flags.config); named != "" {
		return named, nil
	}
	for _, usual := range []string{configHere, "/etc/msl-hsm/msl-hsm.yaml"} {
		_, err := os.Stat(usual)
		if err == nil {
			return usual, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", exit.Usagef("configuration: %w", err)
		}
	}
	return "", nil
}
