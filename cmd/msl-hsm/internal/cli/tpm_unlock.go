package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
)

func tpmUnlockCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "unlock",
		Short: "Make keys with a PIN usable again after too many wrong PINs",
		Long: `Resets the counter in this machine's TPM of wrong PINs, and of power losses after a key
with a PIN was used. If the TPM's lockout hierarchy has a password, --lockout-password
names its source; a wrong password blocks this command for as long as the TPM is set to,
often a day.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) (err error) {
			c, err := p.configure()
			if err != nil {
				return err
			}
			if !strings.HasPrefix(c.Keystore.URI, "tpm:") {
				return exit.Usagef("the key store is not a TPM: give --keystore tpm:")
			}
			d, err := keys.OpenTPM(c)
			if err != nil {
				return err
			}
			defer exit.Closing(&err, d)
			if err := d.ResetLockout(); err != nil {
				return err
			}
			_, err = fmt.Fprintln(p.stdout, "unlocked")
			return err
		},
	}
}
