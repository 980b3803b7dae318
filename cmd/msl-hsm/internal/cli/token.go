//go:build cgo && !nopkcs11

package cli

import (
	"github.com/spf13/cobra"
)

func tokenCommand(p *program) *cobra.Command {
	return group("token", "Make and list PKCS #11 tokens, and change their PINs", tokenInitCommand(p), tokenListCommand(p),
		group("pin", "Set, change and unblock the PINs of a token", tokenPINSetCommand(p), tokenPINChangeCommand(p), tokenPINUnblockCommand(p)))
}
