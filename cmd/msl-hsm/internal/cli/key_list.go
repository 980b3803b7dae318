package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// withKeys runs a verb on a key store, which open opens.
func withKeys(p *program, open func(*config.Config) (keys.Store, error), do func(*config.Config, keys.Store) error) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	store, err := open(c)
	if err != nil {
		return err
	}
	defer exit.Closing(&err, store)
	return do(c, store)
}

func keyListCommand(p *program) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the provisioned keys, with the evidence that they cannot leave the key store",
		Long: `Lists the provisioned keys, with the evidence that they cannot leave the key store.

A key with a weakness is never used. A note says what a key made by an older version
lacks; such a key is still used. key show explains both, and says what to do.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			return withKeys(p, keys.OpenToLook, func(c *config.Config, store keys.Store) error {
				all, err := store.List()
				if err != nil {
					return err
				}
				return listKeys(p, asJSON, noteOldKeys(c, all))
			})
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func listKeys(p *program, asJSON bool, all []keystore.Info) error {
	const head = "LABEL\tVERSION\tALGORITHM\tSENSITIVE\tNEVER EXTRACTABLE\tLOCAL\tUSAGES\tWEAKNESSES"
	return list(p.stdout, asJSON, all, head, func(k keystore.Info) []any {
		return []any{k.Label, k.Version, k.Algorithm, yesNo(k.Sensitive), yesNo(k.NeverExtractable), yesNo(k.Local),
			strings.Join(k.Usages, ","), weaknessNames(k)}
	})
}

// weaknessNames lists only the names; key show explains them.
func weaknessNames(k keystore.Info) string {
	weak := "none"
	if len(k.Weaknesses) > 0 {
		weak = names(k.Weaknesses)
	}
	if len(k.Notes) > 0 {
		weak += "; note " + names(k.Notes)
	}
	return weak
}

func names(explained []string) string {
	var names []string
	for _, w := range explained {
		name, _, _ := strings.Cut(w, ":")
		names = append(names, name)
	}
	return strings.Join(names, ",")
}
