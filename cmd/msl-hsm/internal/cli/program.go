package cli

import (
	"fmt"
	"io"
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
		if near := nearest(args[0], c.Commands()); near != "" {
			return exit.Usagef("unknown command %q; did you mean %q?", args[0], near)
		}
		return exit.Usagef("unknown command %q; see %s --help", args[0], c.CommandPath())
	}
}

// nearest returns the name of the command that takes the fewest changes to get from word,
// or nothing if that is another word altogether.
func nearest(word string, commands []*cobra.Command) (name string) {
	least := 1 + max(1, (len(word)+1)/3) // changes, that are too many
	for _, c := range commands {
		changes := distance(strings.ToLower(word), c.Name())
		if len(word) >= 2 && strings.HasPrefix(c.Name(), strings.ToLower(word)) {
			changes = 1 // not ended
		}
		if c.IsAvailableCommand() && changes < min(least, len(word)) {
			least, name = changes, c.Name()
		}
	}
	return name
}

// distance returns how many letters have to be changed, added, removed or exchanged with
// their neighbor to make b of a (Damerau and Levenshtein).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// want checks the arguments of a verb against their names.
func want(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		if len(names) == 0 {
			return wrongArguments(c, "no arguments, but got %q", args[0])
		}
		return wrongArguments(c, "%s: got %d of %d arguments", strings.Join(names, " "), len(args), len(names))
	}
}

// wrongArguments says what a command takes, and where more is said.
func wrongArguments(c *cobra.Command, takes string, args ...any) error {
	path := c.CommandPath()
	return exit.Usagef("%s takes %s; see %s --help", strings.TrimPrefix(path, c.Root().Name()+" "), fmt.Sprintf(takes, args...), path)
}

// atMost checks that there are no more than n arguments.
func atMost(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return wrongArguments(c, "%d argument at most, but got %d", n, len(args))
		}
		return nil
	}
}
