//go:build cgo && !nopkcs11

package cli

import (
	"fmt"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
)

// openMaking opens the key store for a verb that makes keys: sealing keys are trusted if
// a source of the security officer's PIN is given.
func openMaking(p *program, c *config.Config, soPIN string, open func(*config.Config) (keys.Store, error)) (keys.Store, error) {
	if soPIN == "" {
		return open(c)
	}
	return openOfficer(p, c, soPIN)
}

// openOfficer opens the token, with its security officer's PIN from a source.
func openOfficer(p *program, c *config.Config, soPIN string) (none keys.Officer, err error) {
	if err := notFromEnvironment("--so-pin", soPIN); err != nil {
		return none, err
	}
	if scheme, _, _ := strings.Cut(c.Keystore.URI, ":"); scheme == "soft" || scheme == "tpm" {
		return none, exit.Usagef("only a PKCS #11 token has a security officer, and the key store is %s: leave out --so-pin", c.Keystore.URI)
	}
	if c.Keystore.SessionKeys == config.SessionsInMemory {
		return none, exit.Usagef("the security officer marks wrapping keys as trusted, and with keystore.session-keys: memory no key wraps others: leave out --so-pin")
	}
	if !c.Keystore.TrustedWrap {
		return none, exit.Usagef("the security officer makes sealing keys trusted, which is only useful with trusted wrapping: set keystore.trusted-wrapping to true")
	}
	if err := keys.CheckSoftHSM(&c.Keystore); err != nil {
		return none, err
	}
	uri, err := keys.ResolveOne(&c.Keystore)
	if err != nil {
		return none, err
	}
	pin, err := officerPIN(p, c, uri, soPIN)
	if err != nil {
		return none, err
	}
	o, err := keys.OpenOfficer(c, uri, pin)
	if err != nil {
		pin.Close()
		return none, err
	}
	return o, nil
}

// officerPIN reads the security officer's PIN, or none if the token itself asks for it.
func officerPIN(p *program, c *config.Config, uri *hsm.URI, source string) (*lockedmem.Buffer, error) {
	t, err := hsm.PINsOf(uri)
	if err != nil {
		return nil, keys.NoToken(&c.Keystore, err)
	}
	if err := locked(t, hsm.SecurityOfficer); err != nil || t.Pad() {
		return nil, err
	}
	if source == "prompt" {
		warnOfTries(p, t, hsm.SecurityOfficer)
	}
	return keys.Secret(source, fmt.Sprintf("PIN of the %s", hsm.SecurityOfficer))
}
