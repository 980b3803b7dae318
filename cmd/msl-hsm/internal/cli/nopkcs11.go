//go:build !cgo || nopkcs11

// The small build: this file replaces key_trust.go, module.go, officer.go, token.go,
// token_init.go and token_list.go.

package cli

import (
	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
)

// tokenCommand stays in the list of verbs, to say why it does not work.
func tokenCommand(*program) *cobra.Command { return withoutPKCS11("token") }

// ceremonyCommand only verifies.
func ceremonyCommand(p *program) *cobra.Command {
	c := withoutPKCS11("ceremony")
	c.AddCommand(ceremonyVerifyCommand(p))
	return c
}

// moduleCommand stays in the list for the same reason.
func moduleCommand(*program) *cobra.Command { return withoutPKCS11("module") }

// moduleCheckCommand cannot be called.
func moduleCheckCommand() *cobra.Command {
	c := withoutPKCS11("module-check")
	c.Hidden = true
	return c
}

// keyTrustCommand stays in the list of verbs of key.
func keyTrustCommand(*program) *cobra.Command { return withoutPKCS11("trust") }

// openMaking opens the key store; there is no security officer.
func openMaking(_ *program, c *config.Config, soPIN string, open func(*config.Config) (keys.Store, error)) (keys.Store, error) {
	if soPIN != "" {
		return nil, keys.NoPKCS11()
	}
	return open(c)
}

func withoutPKCS11(name string) *cobra.Command {
	return &cobra.Command{
		Use:                name,
		Short:              "Not in this build, which has no PKCS #11",
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
		Args:               cobra.ArbitraryArgs,
		RunE:               func(*cobra.Command, []string) error { return keys.NoPKCS11() },
	}
}
