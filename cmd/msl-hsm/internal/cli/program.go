package cli

import (
	"fmt"
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
	signalsTaken   func()   // called by a command that handles signals itself: they no longer end the process
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

// onlyKnown makes a command without its own action refuse unknown subcommands.
func onlyKnown(c *cobra.Command) {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		return unknownCommand(c, args[0])
	}
}

func unknownCommand(c *cobra.Command, name string) error {
	if near := nearest(name, c.Commands()); near != "" {
		return exit.Usagef("unknown command %q; did you mean %q?", name, near)
	}
	return exit.Usagef("unknown command %q; see %s --help", name, c.CommandPath())
}

// strict makes cobra's built-in commands refuse what they do not know, like all others.
func strict(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.RunE = helpKnown(c.Run)
		case "completion":
			onlyKnown(c)
			for _, shell := range c.Commands() {
				shell.Args = want()
			}
		}
	}
}

// helpKnown refuses requests for help that does not exist.
func helpKnown(help func(*cobra.Command, []string)) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		about, rest, err := c.Root().Find(args)
		if err != nil || len(rest) == 0 {
			help(c, args)
			return err
		}
		if about.HasSubCommands() {
			return unknownCommand(about, rest[0])
		}
		return wrongArguments(c, "the names of commands, but %s has no command %q", about.CommandPath(), rest[0])
	}
}

// nearest returns the name of the command most likely meant by a word, or "".
func nearest(word string, commands []*cobra.Command) string {
	var names []string
	for _, c := range commands {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return exit.Nearest(word, names)
}

// want checks the arguments of a verb against their names.
func want(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if i := slices.Index(args, "-"); i >= 0 && i < len(names) && names[i] == "FILE" {
			return noStream(strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" "))
		}
		if len(args) == len(names) {
			return nil
		}
		if len(names) == 0 {
			return wrongArguments(c, "no arguments, but got %q", args[0])
		}
		return wrongArguments(c, "%s: got %d of %d arguments", strings.Join(names, " "), len(args), len(names))
	}
}

// wrongArguments says what a command takes, and where to read more.
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
