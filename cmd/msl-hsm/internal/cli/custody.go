package cli

import (
	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

func custodyCommand(p *program) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "custody",
		Short: "Show where session keys exist, by key exchange, provider and side",
		Long: `Prints, from the declarations of the key exchanges themselves, where the bytes of
session keys exist, and the strictest server.custody that allows each:

  sealed    outside the key store only wrapped
  imported  in the memory of the process while an exchange runs
  shared    also in master tokens that the reference stacks can read

The provider pkcs11-memory is a PKCS #11 token with keystore.session-keys: memory.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			rows := keyx.CustodyTable(keys.Providers()...)
			return list(p.stdout, asJSON, rows, "SCHEME\tMECHANISM\tPROVIDER\tSIDE\tCUSTODY\tWHERE KEY BYTES ARE", func(r keyx.CustodyRow) []any {
				return []any{r.Scheme, r.Mechanism, r.Provider, r.Side, r.Custody, r.Where}
			})
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
