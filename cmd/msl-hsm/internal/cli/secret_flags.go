package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/secret"
)

// notFromEnvironment refuses a flag that reads a secret from the environment: other
// processes may see it there, so that choice must be made in the configuration file.
func notFromEnvironment(flag, source string) error {
	if strings.HasPrefix(source, "env:") {
		return exit.Usagef("%s takes no env:NAME: other processes may see the environment; name it in the configuration if it must be", flag)
	}
	if source != "" {
		if _, err := secret.Parse(source); err != nil {
			return exit.Usagef("%s: want file:PATH, fd:N, credential:NAME or prompt", flag)
		}
	}
	return nil
}

// soPINFlag is for verbs that involve a token's security officer.
func soPINFlag(c *cobra.Command, source *string, what string) {
	c.Flags().StringVar(source, "so-pin", "", "`SOURCE` of the security officer's PIN"+what+": file:PATH, fd:N, credential:NAME or prompt")
}
