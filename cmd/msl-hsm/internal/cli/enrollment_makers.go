package cli

import (
	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/tpm/makers"
)

func enrollmentMakersCommand(p *program) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "makers",
		Short: "List the certificates of TPM makers that this program has",
		Long: `Lists the certificates that server.enrollment.ek-roots: makers trusts. If these are not
the ones you want, name your own file there instead, or [makers, FILE] for both.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			all, err := makers.List()
			if err != nil {
				return err
			}
			return list(p.stdout, asJSON, all, "NAME\tFROM\tUNTIL\tSHA-256\tSUBJECT", func(c makers.Certificate) []any {
				return []any{c.Name, day(c.NotBefore), day(c.NotAfter), c.SHA256, c.Subject}
			})
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
