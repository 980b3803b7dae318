package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// noneEmpty refuses empty arguments and flags with an empty value, for example from an
// unset shell variable: for an empty flag, another value would be used. Only data to be
// sent or noted may be empty, and the word that a shell completes. It also refuses - for a file,
// except where that is said to stand for the standard input.
func noneEmpty(c *cobra.Command, args []string) (err error) {
	c.Flags().Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		if slices.Contains(values, "") && f.Name != "data" && f.Name != "note" {
			err = exit.Usagef("--%s is empty: give a value, or omit the flag", f.Name)
		}
		if what, usage := pflag.UnquoteUsage(f); what == "FILE" && slices.Contains(values, "-") && !strings.Contains(usage, "standard input") {
			err = noStream("--" + f.Name)
		}
	})
	if i := slices.Index(args, ""); err == nil && i >= 0 && c.Name() != cobra.ShellCompRequestCmd {
		return exit.Usagef("argument %d is empty; see %s --help", i+1, c.CommandPath())
	}
	return err
}

// noStream is the error if - stands where only a file can.
func noStream(place string) error {
	return exit.Usagef("%s takes a file, and - is not one: name a file, such as ./-", place)
}

// A flagGroup is a group of related flags in a help text.
type flagGroup struct {
	title string
	c     *cobra.Command
}

// set returns the flag set in which the group's flags are defined.
func (g *flagGroup) set() interface {
	BoolVar(p *bool, name string, value bool, usage string)
	BoolVarP(p *bool, name, shorthand string, value bool, usage string)
	DurationVar(p *time.Duration, name string, value time.Duration, usage string)
	IntVar(p *int, name string, value int, usage string)
	StringVar(p *string, name, value, usage string)
	StringArrayVar(p *[]string, name string, value []string, usage string)
	UintSliceVar(p *[]uint, name string, value []uint, usage string)
} {
	if g.c == nil {
		g.c = &cobra.Command{}
	}
	return g.c.Flags()
}

// flagUsages lists flags for a help text. A value that may be left out must follow an equals
// sign: pflag shows it as a word of its own, which would be taken for an argument.
func flagUsages(flags *pflag.FlagSet) string {
	optional := regexp.MustCompile(`(--[a-z-]+) ([A-Z]+)\[="[^"]*"\]`)
	return optional.ReplaceAllStringFunc(flags.FlagUsages(), func(shown string) string {
		parts := optional.FindStringSubmatch(shown)
		return fmt.Sprintf("%-*s", len(shown), parts[1]+"[="+parts[2]+"]")
	})
}

// grouped gives a command its flags, and a help text that shows them by group.
func grouped(c *cobra.Command, groups ...flagGroup) {
	for _, g := range groups {
		c.Flags().AddFlagSet(g.c.Flags())
	}
	c.SetUsageFunc(func(c *cobra.Command) error {
		var text strings.Builder
		fmt.Fprintf(&text, "Usage:\n  %s\n", c.UseLine())
		for _, g := range groups {
			fmt.Fprintf(&text, "\n%s:\n%s", g.title, flagUsages(g.c.Flags()))
		}
		fmt.Fprintf(&text, "\nGlobal Flags:\n%s", c.InheritedFlags().FlagUsages())
		_, err := fmt.Fprint(c.OutOrStdout(), text.String())
		return err
	})
}
