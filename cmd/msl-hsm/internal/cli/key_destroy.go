package cli

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
)

func keyDestroyCommand(p *program) *cobra.Command {
	var yes, force bool
	var version uint32
	c := &cobra.Command{
		Use:   "destroy NAME",
		Short: "Destroy a provisioned key for good",
		Long: `Destroys a provisioned key, or one version of it. Without --force, versions that the
servers of the configured state need are kept: the one in use, also of the key of
their identity, those that seal pre-shared keys, and those whose tokens may still be
used.`,
		Args: want("NAME"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if !yes {
				return exit.Usagef("key destroy cannot be undone, and what the key protects is lost: repeat it with --yes")
			}
			c, err := p.configure()
			if err != nil {
				return err
			}
			store, err := keys.OpenToLook(c)
			if err != nil {
				return err
			}
			defer exit.Closing(&err, store)
			if !force {
				if err := unneeded(c, cmd.Context(), store, args[0], version); err != nil {
					return err
				}
			}
			what := args[0]
			if version != 0 {
				what = fmt.Sprintf("%s version %d", what, version)
			}
			if err := tellKeys(c, store, "key destroy", what, destroyVersion(p, c, store, args[0], version, force)); err != nil {
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
	c.Flags().BoolVar(&force, "force", false, "even if servers need it, or if that cannot be determined")
	versionFlag(c, &version, "only this version `N` (default every version)")
	return c
}

// versionFlag adds a flag for one version of a key. Without it a command means all versions, or the
// newest: a 0 that a script computed must not.
func versionFlag(c *cobra.Command, version *uint32, usage string) {
	c.Flags().Uint32Var(version, "version", 0, usage)
	c.PreRunE = func(*cobra.Command, []string) error {
		if c.Flags().Changed("version") && *version == 0 {
			return exit.Usagef("--version 0: the first version of a key is 1; msl-hsm key list shows which there are")
		}
		return nil
	}
}

// destroyVersion also moves the state to another version, if the destroyed version
// authenticates it.
func destroyVersion(p *program, c *config.Config, store keys.Store, label string, version uint32, force bool) error {
	destroyed := false
	destroy := func() error {
		destroyed = true
		return store.Destroy(label, version)
	}
	none := c.Server.State.IsZero() || c.Server.State.Path() != "" && admin.Absent(c.Server.State.Path())
	if none || version == 0 || label != keystore.RoleIssuerMAC.Label(c.Keystore.Prefix) {
		return destroy()
	}
	newest, err := keys.Newest(store)
	if err != nil {
		return err
	}
	err = admin.Without(c, store, version, newest[label].Version == version, destroy)
	if err == nil || !force || destroyed {
		return err
	}
	fmt.Fprintf(p.stderr, "the state could not be authenticated with another version of the key: %s\n", exit.OneLine(err))
	return destroy()
}

// notIdentity refuses the version with which servers prove their identity.
func notIdentity(store keys.Store, label string, version uint32) error {
	newest, err := keys.Newest(store)
	if err != nil {
		return err
	}
	if used := newest[label].Version; used != 0 && (version == 0 || version == used) {
		return fmt.Errorf("%s version %d is kept, since servers prove their identity with it; with --force it is destroyed, and then devices must be given the public key of another", label, used)
	}
	return nil
}

// unneeded checks that the servers of the configured state do not need a key.
func unneeded(c *config.Config, ctx context.Context, store keys.Store, label string, version uint32) (err error) {
	if c.Server.State.IsZero() {
		return nil
	}
	if label == cmp.Or(c.Server.Key, keystore.RoleIdentity.Label(c.Keystore.Prefix)) {
		return notIdentity(store, label, version)
	}
	if !admin.Rotates(c.Keystore.Prefix, label) {
		return nil
	}
	s, err := admin.OpenRotations(c, store)
	if err != nil {
		return fmt.Errorf("it cannot be determined whether servers need the key: %w; --force destroys it anyway", err)
	}
	defer exit.Closing(&err, s)
	if _, err := admin.PairRotations(c, s, store); err != nil {
		return err
	}
	needs, err := admin.FindNeeds(ctx, s, store, c.Keystore.Prefix, admin.AcceptedFor(c))
	if err != nil {
		return err
	}
	all, err := store.List()
	if err != nil {
		return err
	}
	for _, k := range all {
		if k.Label != label || version != 0 && k.Version != version {
			continue
		}
		if why := needs.Why(label, k.Version); why != "" {
			return fmt.Errorf("%s version %d is kept, since %s; with --force it is destroyed, and then %s", label, k.Version, why, needs.Consequence(label, k.Version))
		}
	}
	return nil
}
