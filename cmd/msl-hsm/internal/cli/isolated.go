package cli

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
)

// isolatedCommand is for the program itself, which runs it if keystore.isolate is on.
func isolatedCommand() *cobra.Command {
	return &cobra.Command{
		Use:    keys.IsolatedVerb,
		Hidden: true,
		Args:   want(),
		RunE: func(*cobra.Command, []string) error {
			if err := keys.ServeIsolated(); err != nil {
				os.Exit(exit.Code(err)) // the other process reports why
			}
			return nil
		},
	}
}
