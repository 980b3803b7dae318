package cli

import (
	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

func enrollmentCRLCommand(p *program) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "crl",
		Short: "Print the list of revoked certificates, signed by the CA",
		Args:  want(),
		RunE: func(*cobra.Command, []string) error {
			return p.withEnrollments(true, func(s admin.Enrollments) error {
				der, err := s.CRL()
				if err != nil {
					return err
				}
				if out != "" {
					return atomicfile.Replace(out, enroll.PEM("X509 CRL", der), 0o644)
				}
				_, err = p.stdout.Write(enroll.PEM("X509 CRL", der))
				return err
			})
		},
	}
	c.Flags().StringVar(&out, "out", "", "write it to this PEM `FILE`, atomically replacing an older one")
	return c
}
