package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// completeChoices makes a shell complete the values of flags that take one of a few names.
// It leaves out flags for which a verb has done that, as names mean something else there.
func completeChoices(c *cobra.Command) {
	for _, sub := range c.Commands() {
		completeChoices(sub)
	}
	for flag, names := range map[string][]string{
		"entity-scheme": config.EntitySchemeNames(), "scheme": config.EntitySchemeNames(),
		"user-scheme": config.UserSchemeNames(), "user-schemes": config.UserSchemeNames(),
		"key-exchange": config.ExchangeNames(), "key-exchanges": config.ExchangeSchemes(), "dh-group": config.GroupNames(),
		"custody": {"sealed", "imported", "shared"}, "log-format": {"auto", "text", "json"}, "algorithm": strings.Split(exit.List(keystore.Algorithms()), ", "),
	} {
		if c.LocalFlags().Lookup(flag) != nil {
			completeFlag(c, flag, names...)
		}
	}
}

// completeFlag makes a shell complete the values of a flag, unless that is done already.
func completeFlag(c *cobra.Command, flag string, names ...string) {
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
}

// unquoteUsage removes from the texts of flags the quotes that mark the name of a value: --help
// does so by itself, and shells show the text as it is.
func unquoteUsage(c *cobra.Command) {
	unquote := func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") }
	c.Flags().VisitAll(unquote)
	c.PersistentFlags().VisitAll(unquote)
	for _, sub := range c.Commands() {
		unquoteUsage(sub)
	}
}
