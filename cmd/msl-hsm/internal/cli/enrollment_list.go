package cli

import (
	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

func enrollmentListCommand(p *program) *cobra.Command {
	var asJSON bool
	var only string
	c := &cobra.Command{
		Use:   "list",
		Short: "List the devices that enrolled, or want to",
		Args:  want(),
		RunE: func(*cobra.Command, []string) error {
			return p.withEnrollments(false, func(s admin.Enrollments) error {
				all, err := s.Records()
				if err != nil {
					return err
				}
				var shown []enroll.Record
				for _, r := range all {
					if only == "" || string(r.State) == only {
						shown = append(shown, r)
					}
				}
				return list(p.stdout, asJSON, shown, "EK HASH\tNAME\tSTATE\tUPDATED\tWHY", func(r enroll.Record) []any {
					return []any{r.ID.String()[:16], r.Name, r.State, day(r.Updated), reasons(r)}
				})
			})
		},
	}
	c.Flags().StringVar(&only, "state", "", "only those in this `STATE`: pending, approved, enrolled, rejected or revoked")
	jsonFlag(c, &asJSON)
	return c
}

// reasons returns why a device may enroll, or why it waits.
func reasons(r enroll.Record) string {
	switch {
	case r.Waits == "":
		return r.Accepted
	case r.Accepted == "":
		return r.Waits
	}
	return r.Accepted + "; " + r.Waits
}

func enrollmentShowCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "show DEVICE",
		Short: "Show all that is known of a device, with its evidence, as JSON",
		Args:  want("DEVICE"),
		RunE: func(_ *cobra.Command, args []string) error {
			return p.withEnrollments(false, func(s admin.Enrollments) error {
				all, err := s.Records()
				if err != nil {
					return err
				}
				r, err := find(all, args[0])
				if err != nil {
					return err
				}
				return printJSON(p.stdout, r)
			})
		},
	}
}
