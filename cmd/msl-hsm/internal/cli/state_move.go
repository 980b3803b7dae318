package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

func stateExportCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "export FILE",
		Short: "Write the state in etcd to a file, even while servers run",
		Long: `Writes a snapshot of the state in etcd to FILE, as a state file: a backup, or the start of
a server that keeps its state in a file. It first makes sure that nobody without the keys
of the servers changed the state, and checks the file afterwards. FILE must not exist, and
gets mode 0600. Protect it like the state itself: it has the sealed keys of devices and the
hashes of passwords. It includes the enrollments of devices in etcd.`,
		Args: want("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := p.configure()
			if err != nil {
				return err
			}
			line := newProgress(p.stderr)
			sum, err := admin.ExportState(c, args[0], copying(line))
			line.clear()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(p.stdout, "wrote %s: %s, %s\n", args[0], exit.Count(sum.Entities, "entity", "entities"), exit.Count(sum.Users, "user", "users"))
			return err
		},
	}
}

const importedText = `Every token that was issued until %s has ended: devices begin a
new session by themselves, users log in again. What was revoked after the file was written
is not. If that time is wrong by more than some minutes, correct the clock here, remove the
state with etcdctl del --prefix, and import the file again.
`

func stateImportCommand(p *program) *cobra.Command {
	var keep, newKeys bool
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Write a state file to etcd, which must have no state yet",
		Long: `Writes a state file, a backup or what state export wrote, to the place in etcd that the
configuration names, and compares both. There must be no state yet, or an empty one. After
an interruption, run it again with the same file: no server starts with part of a state.

Stop the file's server first. The file does not know what happened after it was written:
which messages were accepted, which tokens renewed, who was revoked. So every token issued
until now ends: devices begin a new session on their own, and users log in again. With
--keep-tokens, tokens stay valid: for a file whose server has accepted no message since.

The enrollments in a backup are imported, too. For a separate file of enrollments, use
msl-hsm enrollment import.`,
		Args: want("FILE"),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			c, err := p.configure()
			if err != nil {
				return err
			}
			if admin.Absent(args[0]) {
				return exit.Usagef("no state file or backup %s: correct the path", args[0])
			}
			r := admin.BeginRestore(c, args[0], newKeys)
			defer exit.Closing(&err, r)
			line := newProgress(p.stderr)
			done, err := r.ImportState(keep, copying(line))
			line.clear()
			if err := admin.Tell(c, nil, "state import", args[0], err); err != nil {
				return err
			}
			fmt.Fprintf(p.stdout, "imported %s to %s: %s, %s\n", args[0], &c.Server.State, exit.Count(done.Entities, "entity", "entities"), exit.Count(done.Users, "user", "users"))
			if !keep {
				fmt.Fprintf(p.stdout, importedText, done.Ended.UTC().Format(time.RFC3339))
			}
			return importAttached(p, c, r, args[0])
		},
	}
	c.Flags().BoolVar(&keep, "keep-tokens", false, "keep older tokens valid, and let messages accepted since then be replayed")
	newKeysFlag(c, &newKeys)
	return c
}

// importAttached imports the enrollments in a backup, if it has some.
func importAttached(p *program, c *config.Config, r *admin.Restoring, path string) error {
	content, err := r.Enrollments()
	switch {
	case err == nil && content == nil:
		return nil
	case err == nil && !c.Server.Enrollment.Shared():
		fmt.Fprintf(p.stderr, "%s has enrollments, but the configuration does not put enrollments into etcd, so they were left out; set server.enrollment.state to etcd, and run msl-hsm enrollment import %s\n", path, admin.Quoted(path))
		return nil
	}
	states := map[enroll.State]int{}
	if err == nil {
		states, err = r.ImportEnrollments(content)
	}
	if err != nil {
		return fmt.Errorf("the state is imported, and the enrollments are not: %w; try again with msl-hsm enrollment import %s", err, admin.Quoted(path))
	}
	_, err = fmt.Fprintf(p.stdout, "imported the enrollments in it%s\n", admin.Enrolled(states))
	return err
}

// copying returns a function that shows how many records were copied.
func copying(g *progressLine) func(records int) {
	return func(records int) { g.tell("copied %d records", records) }
}
