package cli

import (
	"cmp"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// A program is the state shared by all verbs.
type program struct {
	defaults       func() *config.Config
	stdin          io.Reader
	stdout, stderr io.Writer
	flags          rootFlags
	stop           *stopper // of a server or an agent, or nil
}

// rootFlags override the configuration for every verb.
type rootFlags struct {
	config, keystore, softhsm, pin string
	owner, endorsement, lockout    string // passwords of a TPM
}

// group makes a command that has only subcommands.
func group(name, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short}
	c.AddCommand(verbs...)
	onlyKnown(c)
	return c
}

// onlyKnown makes a command without an action of its own refuse unknown subcommands.
func onlyKnown(c *cobra.Command) {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		c.SuggestionsMinimumDistance = 2
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			return exit.Usagef("unknown command %q; did you mean %q?", args[0], nearest(args[0], near))
		}
		return exit.Usagef("unknown command %q; see %s --help", args[0], c.CommandPath())
	}
}

// nearest returns the name that begins like word, or else the first.
func nearest(word string, names []string) string {
	return slices.MaxFunc(names, func(a, b string) int { return cmp.Compare(common(word, a), common(word, b)) })
}

// common returns how many bytes at the start of a and b are the same.
func common(a, b string) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// want checks the arguments of a verb against their names.
func want(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		if len(names) == 0 {
			return exit.Usagef("%s takes no arguments, but got %q", c.CommandPath(), args[0])
		}
		return exit.Usagef("%s takes %s: got %d of %d arguments", c.CommandPath(), strings.Join(names, " "), len(args), len(names))
	}
}

// atMost checks that there are no more than n arguments.
func atMost(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return exit.Usagef("%s takes %d argument at most, but got %d", c.CommandPath(), n, len(args))
		}
		return nil
	}
}
