package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// known adds the next step to the error of an unknown name.
func known(err error, next string) error {
	if exit.IsAny(err, state.ErrUnknown, state.ErrNotRevoked) {
		return fmt.Errorf("%w; %s lists them", err, next)
	}
	return err
}

// onName makes a verb that does one thing to one entity or user.
func (p *program) onName(argument, group, use, short, done string, do func(admin.Registry, string) error) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   use + " " + argument,
		Short: short,
		Args:  want(argument),
		RunE: func(_ *cobra.Command, args []string) error {
			err := p.withState(path, func(s admin.Registry) error { return do(s, args[0]) })
			if err == nil {
				fmt.Fprintf(p.stdout, "%s %s\n", done, exit.Printable(args[0]))
			}
			return known(err, "msl-hsm "+group+" list")
		},
	}
	stateFlag(c, &path)
	return c
}

func entityRemoveCommand(p *program) *cobra.Command {
	return p.onName("IDENTITY", "entity", "remove", "Remove an entity; its tokens are refused from then on", "removed", admin.Registry.RemoveEntity)
}

func entityRevokeCommand(p *program) *cobra.Command {
	return p.onName("IDENTITY", "entity", "revoke", "Refuse an entity and its tokens, registered or not", "revoked", admin.Registry.RevokeEntity)
}

func entityUnrevokeCommand(p *program) *cobra.Command {
	return p.onName("IDENTITY", "entity", "unrevoke", "Undo a revocation", "unrevoked", admin.Registry.UnrevokeEntity)
}

func entityListCommand(p *program) *cobra.Command {
	var path string
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the registered entities",
		Long: `Lists the registered entities.

"register it again" means that an older version sealed its pre-shared keys, so that
anyone who has the PIN of the key store and the state file can compute its wrapping key
and decrypt recorded key exchanges. Remove it, add it again with --generate-psk, or with
--tpm-psk where its keys are in a TPM, and give the new keys to the device. Its tokens
end when it is removed.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			return p.withState(path, func(s admin.Registry) error {
				all, err := s.Entities()
				if err != nil {
					return err
				}
				var shown []listedEntity
				for _, e := range all {
					shown = append(shown, listed(e))
				}
				return list(p.stdout, asJSON, shown, "IDENTITY\tSCHEME\tKEY ID\tSTATUS\tREGISTERED", func(e listedEntity) []any {
					return []any{e.Identity, e.Scheme, e.KeyID, e.status(), day(e.Created)}
				})
			})
		},
	}
	stateFlag(c, &path)
	jsonFlag(c, &asJSON)
	return c
}
