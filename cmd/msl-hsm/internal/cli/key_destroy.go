package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
)

func keyDestroyCommand(p *program) *cobra.Command {
	var yes bool
	var version uint32
	c := &cobra.Command{
		Use:   "destroy NAME",
		Short: "Destroy a provisioned key for good",
		Args:  want("NAME"),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			if !yes {
				return exit.Usagef("key destroy cannot be undone, and what the key protects is lost: repeat it with --yes")
			}
			c, err := p.configure()
			if err != nil {
				return err
			}
			store, err := keys.Open(c)
			if err != nil {
				return err
			}
			defer exit.Closing(&err, store)
			what := args[0]
			if version != 0 {
				what = fmt.Sprintf("%s version %d", what, version)
			}
			if err := tellKeys(c, store, "key destroy", what, store.Destroy(args[0], version)); err != nil {
				return keys.Missing(err, "msl-hsm key list shows what is there")
			}
			if version == 0 {
				fmt.Fprintf(p.stdout, "destroyed %s, every version\n", args[0])
			} else {
				fmt.Fprintf(p.stdout, "destroyed %s version %d\n", args[0], version)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "really do it")
	c.Flags().Uint32Var(&version, "version", 0, "only this version `N` (default every version)")
	return c
}
