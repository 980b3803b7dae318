//go:build cgo && !nopkcs11

package cli

import (
	"github.com/spf13/cobra"
)

func tokenCommand(p *program) *cobra.Command {
	return group("token", "Make and list PKCS #11 tokens", tokenInitCommand(p), tokenListCommand(p))
}
