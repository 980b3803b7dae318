package cli

import (
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/secret"
)

// notFromEnvironment refuses a flag that takes a secret from the environment: other
// processes may see it there, so that choice has to be made in the configuration file.
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
