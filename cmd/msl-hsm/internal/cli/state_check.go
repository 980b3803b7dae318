package cli

import (
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

func stateCheckCommand(p *program) *cobra.Command {
	var path string
	var asJSON bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Read all of the state, and count what is in it",
		Long: `Reads every page and every record of the state, and of the file of enrollments if the
configuration names one, and counts them. Damage is an error. It may run beside a
server; to check the pages, it copies the file within its directory.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			return p.onState(path, func(k admin.Keeper) error {
				r, err := k.Check()
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(p.stdout, r)
				}
				return printReport(p, r)
			})
		},
	}
	stateFlag(c, &path)
	jsonFlag(c, &asJSON)
	return c
}

func printReport(p *program, r admin.StateReport) error {
	t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "entities\t%d registered, %d revoked, %d removed\n", r.Entities, r.EntitiesRevoked, r.EntitiesRemoved)
	fmt.Fprintf(t, "users\t%d registered, %d revoked, %d removed\n", r.Users, r.UsersRevoked, r.UsersRemoved)
	fmt.Fprintf(t, "master tokens\t%d used with non-replayable ids, %d renewed\n", r.IDs, r.Sequences)
	if !r.Latest.IsZero() {
		fmt.Fprintf(t, "last recorded\t%s\n", r.Latest.UTC().Format(time.RFC3339))
	}
	for _, s := range slices.DeleteFunc(enroll.States(), func(s enroll.State) bool { return r.Enrollments[s] == 0 }) {
		fmt.Fprintf(t, "enrollments\t%d %s\n", r.Enrollments[s], s)
	}
	if r.Bytes == 0 { // in etcd
		fmt.Fprintln(t, "no damage\tevery record was read, and all but ids and renewals are authentic")
		return t.Flush()
	}
	fmt.Fprintf(t, "size\t%d bytes, %d of them free\n", r.Bytes, r.Free)
	fmt.Fprintln(t, "no damage\tevery page and record was read"+authentic(r))
	return t.Flush()
}

func authentic(r admin.StateReport) string {
	if r.Authentic {
		return ", and all are authentic"
	}
	return "; they are not authenticated yet, or no key store was named to tell"
}

func statePruneCommand(p *program) *cobra.Command {
	var path string
	var asJSON bool
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove what no token needs any more, as a server does on its own",
		Long: `Removes the records of master tokens that are no longer accepted or renewed, and the
marks of removed entities whose last token has ended. A running server does that on its
own. Revocations stay. The file does not shrink: see msl-hsm state compact.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			return p.onState(path, func(k admin.Keeper) error {
				f, err := k.Prune()
				switch {
				case err != nil:
					return err
				case asJSON:
					return printJSON(p.stdout, f)
				}
				_, err = fmt.Fprintf(p.stdout, "removed the records of %d master tokens and the marks of %d removed entities\n", f.Tokens, f.Names)
				return err
			})
		},
	}
	stateFlag(c, &path)
	jsonFlag(c, &asJSON)
	return c
}
