package cli

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
)

func keyShowCommand(p *program) *cobra.Command {
	var public, asJSON bool
	var version uint32
	c := &cobra.Command{
		Use:   "show NAME",
		Short: "Show a provisioned key, or its public key",
		Args:  want("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			if public { // a weak key proves nothing
				return withKeys(p, keys.Open, func(_ *config.Config, store keys.Store) error { return showPublic(p, store, args[0], version) })
			}
			return withKeys(p, keys.OpenToLook, func(c *config.Config, store keys.Store) error {
				return showKey(p, c, store, args[0], version, asJSON)
			})
		},
	}
	c.Flags().BoolVar(&public, "public", false, "print the public key as PEM")
	versionFlag(c, &version, "of this version `N` only (default all, or the newest with --public)")
	jsonFlag(c, &asJSON)
	return c
}

// A publicHalf is a key whose public half can be shown.
type publicHalf interface{ Public() crypto.PublicKey }

func showPublic(p *program, store keystore.Store, label string, version uint32) error {
	ring, err := store.Lookup(label)
	if err != nil {
		return keys.Missing(err, "msl-hsm key list shows what is there")
	}
	for _, v := range ring {
		if version != 0 && v.Number != version {
			continue
		}
		k, ok := v.Key.(publicHalf)
		if !ok {
			return exit.Usagef("key %q is a secret key and has no public half", label)
		}
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			return err
		}
		return pem.Encode(p.stdout, &pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	return fmt.Errorf("%w; msl-hsm key list shows the keys", keystore.NoVersion(label, version))
}

func showKey(p *program, c *config.Config, store keys.Store, label string, version uint32, asJSON bool) error {
	all, err := store.List()
	if err != nil {
		return err
	}
	found := []keystore.Info{}
	for _, k := range noteOldKeys(c, all) {
		if k.Label == label && (version == 0 || k.Version == version) {
			found = append(found, k)
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("key %q: %w; msl-hsm key list shows the keys", label, keystore.ErrNotFound)
	}
	if asJSON {
		return printJSON(p.stdout, found)
	}
	for _, k := range found {
		describeKey(p, store, k)
	}
	return nil
}

func describeKey(p *program, store keystore.Store, k keystore.Info) {
	fmt.Fprintf(p.stdout, "%s version %d\n", exit.Printable(k.Label), k.Version)
	t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	line := func(name string, value any) { fmt.Fprintf(t, "  %s\t%s\n", name, exit.Printable(fmt.Sprint(value))) }
	line("algorithm", k.Algorithm)
	if k.Stored != "" {
		line("in the device", k.Stored)
	}
	line("value can be read", yesNo(!k.Sensitive))
	line("value could ever be read", yesNo(!k.AlwaysSensitive))
	line("can leave wrapped", yesNo(k.Extractable))
	line("could ever leave wrapped", yesNo(!k.NeverExtractable))
	line("made in the device", yesNo(k.Local))
	line("usages can change", yesNo(k.Modifiable))
	line("can be copied", yesNo(k.Copyable))
	line("usages", strings.Join(k.Usages, ", "))
	if len(k.Mechanisms) > 0 {
		line("mechanisms allowed", strings.Join(k.Mechanisms, ", "))
	}
	if k.Reseals || k.Trusted {
		line("seals again what others sealed", yesNo(k.Trusted))
		line("what it sealed can be sealed again", yesNo(k.Reseals))
	}
	if id := idOfVersion(store, k); id != "" {
		line("key id", id)
	}
	for _, w := range k.Weaknesses {
		line("weakness", w)
	}
	for _, n := range k.Notes {
		line("note", n)
	}
	t.Flush()
}

// idOfVersion returns the key id by which peers know a public key, or "".
func idOfVersion(store keystore.Store, k keystore.Info) string {
	ring, err := store.Lookup(k.Label)
	if err != nil {
		return "" // a key refused for its weaknesses is still described
	}
	for _, v := range ring {
		if pair, ok := v.Key.(publicHalf); ok && v.Number == k.Version {
			id, err := keystore.KeyID(pair.Public())
			if err == nil {
				return id
			}
		}
	}
	return ""
}
