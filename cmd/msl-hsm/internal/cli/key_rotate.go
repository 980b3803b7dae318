package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
)

func keyRotateCommand(p *program) *cobra.Command {
	var soPIN string
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Switch all servers to new keys while they run",
		Long: `Makes the next version of all keys of a server except its identity, and has the servers
use it: the one with this state file, or all that share a state in etcd. They keep
running. None uses the new version until all of them have it, except those that have
given no sign of life for 15 seconds.

After an interruption, run it again: it continues where it stopped. Older versions still
open what they made; msl-hsm key retire destroys them when nothing needs them.

With keystore.trusted-wrapping, --so-pin has the token's security officer make trusted
sealing keys, with which key rewrap can seal pre-shared keys again.`,
		Args: want(),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.rotating(c.Context(), "key rotate", soPIN, func(ctx context.Context, r *admin.Rotator) error { return r.Rotate(ctx) })
		},
	}
	soPINFlag(c, &soPIN, ", for trusted sealing keys")
	return c
}

// rotating runs a verb that changes the versions of the keys of all servers.
func (p *program) rotating(ctx context.Context, action, soPIN string, do func(context.Context, *admin.Rotator) error) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	if strings.HasPrefix(c.Keystore.URI, "tpm:") {
		return exit.Usagef("the keys of a TPM belong to a device, and this command is for the keys of servers")
	}
	store, err := openMaking(p, c, soPIN, keys.Open)
	if err != nil {
		return err
	}
	defer exit.Closing(&err, store)
	s, err := admin.OpenRotations(c, store)
	if err != nil {
		return err
	}
	defer exit.Closing(&err, s)
	ctx, stop := p.untilTold(ctx)
	defer stop()
	tell := func(format string, args ...any) { fmt.Fprintf(p.stdout, format+"\n", args...) }
	warning, err := admin.PairRotations(c, s, store)
	if err != nil {
		return err
	}
	if warning != "" {
		fmt.Fprintln(p.stderr, warning)
	}
	err = do(ctx, &admin.Rotator{State: s, Store: store, Prefix: c.Keystore.Prefix, Keep: admin.AcceptedFor(c), Tell: tell})
	if err == nil {
		_, err = admin.PairRotations(c, s, store) // with the current versions
	}
	return tellKeys(c, store, action, "keys of the servers", err)
}
