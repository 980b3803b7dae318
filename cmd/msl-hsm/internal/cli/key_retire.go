package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

func keyRetireCommand(p *program) *cobra.Command {
	var yes, force bool
	c := &cobra.Command{
		Use:   "retire",
		Short: "Destroy older server keys that nothing needs any more",
		Long: `Destroys older versions of a server's keys that nothing needs any more, and says what
the others are needed for: pre-shared keys sealed with them, or tokens that may still be
used. Servers stop using a version before it is destroyed.`,
		Args: want(),
		RunE: func(c *cobra.Command, _ []string) error {
			if !yes {
				return exit.Usagef("key retire destroys keys, which cannot be undone: repeat it with --yes")
			}
			return p.rotating(c.Context(), "key retire", "", func(ctx context.Context, r *admin.Rotator) error { return r.Retire(ctx, force) })
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "really do it")
	c.Flags().BoolVar(&force, "force", false, "also destroy versions that are needed: entities have to be registered again, devices begin new sessions, users log in again")
	return c
}
