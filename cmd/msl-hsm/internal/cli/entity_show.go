package cli

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

func entityShowCommand(p *program) *cobra.Command {
	var path string
	var asJSON bool
	c := &cobra.Command{
		Use:   "show IDENTITY",
		Short: "Show what is registered about an entity",
		Args:  want("IDENTITY"),
		RunE: func(_ *cobra.Command, args []string) error {
			return p.withState(path, func(s admin.Registry) error {
				all, err := s.Entities()
				if err != nil {
					return err
				}
				if e := named(all, args[0]); e != nil {
					return describeEntity(p, *e, asJSON)
				}
				return known(fmt.Errorf("entity %q is %w", args[0], state.ErrUnknown), "msl-hsm entity list")
			})
		},
	}
	stateFlag(c, &path)
	jsonFlag(c, &asJSON)
	return c
}

// named finds an entity by its name, or by another spelling of it.
func named(all []state.EntityRecord, name string) (found *state.EntityRecord) {
	for i, e := range all {
		if e.Identity == name {
			return &all[i]
		}
		if found == nil && msl.CanonicalName(e.Identity) == msl.CanonicalName(name) {
			found = &all[i]
		}
	}
	return found
}

func describeEntity(p *program, record state.EntityRecord, asJSON bool) error {
	sealed, e := record.PSK != nil, listed(record)
	if asJSON {
		return printJSON(p.stdout, e)
	}
	t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, exit.Printable(value))
		}
	}
	line("identity", e.Identity)
	line("status", e.status())
	line("since", day(e.Since))
	line("scheme", e.Scheme)
	switch e.Scheme {
	case "PSK_PROFILE":
		line("speaks for", e.Identity+"-PROFILE, for every PROFILE")
	case "NONE_SUFFIXED":
		line("speaks for", e.Identity+".SUFFIX, for every SUFFIX")
	}
	switch {
	case e.RegisterAgain:
		line("keys", "pre-shared, sealed by an older version: see msl-hsm entity list --help")
	case sealed:
		line("keys", "pre-shared, sealed by the key store")
	}
	if public, err := x509.ParsePKIXPublicKey(e.PublicKey); err == nil {
		line("public key", keyKind(public))
	}
	line("key id", e.KeyID)
	line("key exchanges", permitted(e.Scheme, e.KeyExchanges))
	line("user schemes", permitted(e.Scheme, e.UserSchemes))
	line("registered", day(e.Created))
	return t.Flush()
}

func keyKind(public any) string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA, %d bits", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "elliptic curve, " + k.Curve.Params().Name
	}
	return fmt.Sprintf("%T", public)
}

// permitted returns the schemes that a registered entity may use.
func permitted(scheme string, list []string) string {
	switch {
	case scheme == "":
		return ""
	case list == nil:
		return "every one"
	case len(list) == 0:
		return "none"
	}
	return strings.Join(list, ", ")
}
