package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

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
} {
	if g.c == nil {
		g.c = &cobra.Command{}
	}
	return g.c.Flags()
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
			fmt.Fprintf(&text, "\n%s:\n%s", g.title, g.c.Flags().FlagUsages())
		}
		fmt.Fprintf(&text, "\nGlobal Flags:\n%s", c.InheritedFlags().FlagUsages())
		_, err := fmt.Fprint(c.OutOrStdout(), text.String())
		return err
	})
}
