//go:build cgo && !nopkcs11

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
)

func keyTrustCommand(p *program) *cobra.Command {
	var soPIN string
	c := &cobra.Command{
		Use:   "trust",
		Short: "Mark the sealing keys as trusted, as the token's security officer",
		Long: `Has the token's security officer mark the newest sealing keys as trusted wrapping keys
(CKA_TRUSTED), so that key rewrap can seal pre-shared keys with them. It is for servers
with keystore.trusted-wrapping.

Not every token lets its officer mark existing keys. If yours does not, make trusted ones
with msl-hsm key rotate --so-pin SOURCE. Without --so-pin, the officer's PIN is asked for
at the terminal, or on the token's own keypad if it has one.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) (err error) {
			c, err := p.configure()
			if err != nil {
				return err
			}
			o, err := openOfficer(p, c, keys.OrPrompt(soPIN))
			if err != nil {
				return err
			}
			defer exit.Closing(&err, o)
			return trustNewest(p, c, o)
		},
	}
	soPINFlag(c, &soPIN, "")
	return c
}

func trustNewest(p *program, c *config.Config, o keys.Officer) error {
	newest, err := keys.Newest(o)
	if err != nil {
		return err
	}
	for _, role := range []keystore.Role{keystore.RoleSealSession, keystore.RoleSealWrapping} {
		k := newest[role.Label(c.Keystore.Prefix)]
		name := fmt.Sprintf("%s version %d", role.Label(c.Keystore.Prefix), k.Version)
		switch {
		case k.Version == 0:
			return keys.Missing(fmt.Errorf("key %q: %w", role.Label(c.Keystore.Prefix), keystore.ErrNotFound), keys.MakeServerKeys)
		case k.Trusted && k.Reseals:
			fmt.Fprintf(p.stdout, "%s is trusted already\n", name)
			continue
		case !k.Reseals:
			return fmt.Errorf("%s was made without keystore.trusted-wrapping, and is not safe as a trusted key: make new ones with msl-hsm key rotate --so-pin SOURCE", name)
		}
		if err := tellKeys(c, o, "key trust", name, o.Trust(k.Label, k.Version)); err != nil {
			return err
		}
		fmt.Fprintf(p.stdout, "%s is trusted\n", name)
	}
	return nil
}
