package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

func keyRewrapCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "rewrap",
		Short: "Seal the pre-shared keys of entities with the newest keys",
		Long: `Seals the pre-shared keys of entities again, with the versions that seal now, so that
older ones can be retired. Servers go on meanwhile; if it is interrupted, run it again.

In a PKCS #11 token a key that was sealed never leaves the token again, not even for
this. Then the entities are named whose keys older versions seal, and the exit code is
1: register them again with new keys.`,
		Args: want(),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.rotating(c.Context(), "key rewrap", func(ctx context.Context, r *admin.Rotator) error {
				line := newProgress(p.stderr)
				r.Sealed = func(done, of int) { line.tell("looked at %d of %d entities", done, of) }
				tell := r.Tell
				r.Tell = func(format string, args ...any) { line.clear(); tell(format, args...) }
				again, err := r.Rewrap(ctx)
				line.clear()
				if err != nil || len(again) == 0 {
					return err
				}
				for _, name := range again {
					fmt.Fprintln(p.stdout, exit.Printable(name))
				}
				return exit.WithCode(fmt.Errorf("the keys of %d entities cannot leave the key store to be sealed again: give each new keys with msl-hsm entity remove and msl-hsm entity add", len(again)), exit.Failure)
			})
		},
	}
}
