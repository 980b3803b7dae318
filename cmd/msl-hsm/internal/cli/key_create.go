package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
)

func keyCreateCommand(p *program) *cobra.Command {
	var set, algorithm, soPIN string
	var rotate bool
	c := &cobra.Command{
		Use:   "create NAME --algorithm ALGORITHM | --set server|device|audit",
		Short: "Make a key, or all keys that a server or a device needs",
		Long: "Makes a key, or the next version of an existing one.\n\n" +
			"With --set it makes all keys that a server or a device needs, and keeps existing\n" +
			"ones. With --rotate, the keys of the issuer, service tokens and sealing get a new\n" +
			"version, and the older ones still open what they made. The identity key does not:\n" +
			"its new public key must reach all peers first. Then make it by name; the newest\n" +
			"version is the one that is used.\n\n" +
			"Algorithms: " + exit.List(keystore.Algorithms()),
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case set != "" && (len(args) > 0 || algorithm != ""):
				return exit.Usagef("key create takes either --set, or NAME and --algorithm")
			case set != "":
				return createSet(p, set, soPIN, rotate)
			case len(args) != 1 || algorithm == "":
				return exit.Usagef("key create needs NAME and --algorithm, or --set server|device|audit")
			}
			return createKey(p, args[0], algorithm, soPIN)
		},
	}
	c.Flags().StringVar(&set, "set", "", "make all keys of a `ROLE`: server, device, or audit for the audit log")
	c.Flags().StringVar(&algorithm, "algorithm", "", "`ALGORITHM` that the key is for")
	c.Flags().BoolVar(&rotate, "rotate", false, "make the next versions of all keys except the identity key")
	soPINFlag(c, &soPIN, ", for trusted sealing keys")
	completeFlag(c, "set", "server", "device", "audit")
	return c
}

func createSet(p *program, role, soPIN string, rotate bool) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	if strings.HasPrefix(c.Keystore.URI, "tpm:") {
		return exit.Usagef("make the keys of a TPM with msl-hsm tpm init, or one at a time with --algorithm")
	}
	if err := keys.OneToken(&c.Keystore); err != nil {
		return err
	}
	set, err := keys.KeySet(role, c.Keystore.Prefix)
	if err != nil {
		return err
	}
	if role == "server" && c.Server.Audit.File != "" {
		audit, err := keys.KeySet("audit", c.Keystore.Prefix)
		if err != nil {
			return err
		}
		set = append(set, audit...)
	}
	store, err := openMaking(p, c, soPIN, keys.Make)
	if err != nil {
		return err
	}
	defer exit.Closing(&err, store)
	t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	first := false
	paired := rotate && admin.PairsFile(c, store)
	var made []string
	err = keys.Complete(store, set, rotate, func(what string, k keys.Provision, version uint32) {
		first = first || what == "created" && version == 1 && k.Label == keystore.RoleIssuerMAC.Label(c.Keystore.Prefix)
		if what == "created" {
			made = append(made, fmt.Sprintf("%s version %d", k.Label, version))
		}
		fmt.Fprintf(t, "%s\t%s\tversion %d\t%v\t%s\n", what, k.Label, version, k.Algorithm, k.Purpose)
	})
	t.Flush()
	if len(made) > 0 || err != nil {
		err = tellKeys(c, store, "key create", strings.Join(made, ", "), err)
	}
	if paired {
		admin.PairFile(c, store)
	}
	if err != nil || !first {
		return err
	}
	return initFirst(p, c, store)
}

// initFirst makes the state of a server whose first keys were made.
func initFirst(p *program, c *config.Config, store keys.Store) error {
	// Nothing has been issued yet, so no state can have been lost.
	made, err := admin.KeysBy(c, store).InitState()
	for _, name := range made {
		what := "file"
		switch {
		case c.Server.State.Shared() && name == c.Server.State.String():
			what = "state"
		case c.Server.Enrollment.Shared():
			what = "enrollments"
		}
		fmt.Fprintf(p.stdout, "made the %s %s\n", what, name)
	}
	return err
}

func createKey(p *program, label, name, soPIN string) (err error) {
	algorithm, err := keystore.ParseAlgorithm(name)
	if err != nil {
		return exit.Usagef("unknown algorithm %q; want one of %s", name, exit.List(keystore.Algorithms()))
	}
	if err := config.CheckLabel(label); err != nil {
		return err
	}
	c, err := p.configure()
	if err != nil {
		return err
	}
	if err := keys.OneToken(&c.Keystore); err != nil {
		return err
	}
	store, err := openMaking(p, c, soPIN, keys.Make)
	if err != nil {
		return err
	}
	defer exit.Closing(&err, store)
	v, err := store.Create(label, algorithm)
	if err := tellKeys(c, store, "key create", fmt.Sprintf("%s version %d", label, v.Number), err); err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "created %s version %d %v\n", label, v.Number, algorithm)
	return nil
}

// tellKeys records in the audit log what was done with keys, or was not done because of
// err, which it returns. The record is signed, if there is a key for that.
func tellKeys(c *config.Config, store keys.Store, action, subject string, err error) error {
	signer, errKey := keys.AuditKey(c, store)
	if errKey != nil {
		signer = nil // the server signs it when it starts
	}
	return admin.Tell(c, signer, action, subject, err)
}
