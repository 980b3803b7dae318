//go:build !cgo || nopkcs11

// The small build: this file stands in for token.go, token_init.go and token_list.go.

package cli

import (
	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
)

// tokenCommand stays in the list of verbs, to say why it does not work.
func tokenCommand(*program) *cobra.Command {
	return &cobra.Command{
		Use:                "token",
		Short:              "Not in this build, which has no PKCS #11",
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
		Args:               cobra.ArbitraryArgs,
		RunE:               func(*cobra.Command, []string) error { return keys.NoPKCS11() },
	}
}
