package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

func stateExportCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "export FILE",
		Short: "Write the state that is in etcd to a file, also while servers run",
		Long: `Writes the state that is in etcd, as it is at one moment, to FILE, which is a state file:
a backup, or the beginning of a server whose state is in a file. It makes sure before that
nobody without the keys of the servers changed the state, and checks the file afterwards.
FILE must not be there, and gets mode 0600. Keep it as the state itself: it has the sealed
keys of devices and the hashes of passwords. The enrollments of devices in etcd are in it,
too.`,
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
			_, err = fmt.Fprintf(p.stdout, "wrote %s: %d entities, %d users\n", args[0], sum.Entities, sum.Users)
			return err
		},
	}
}

const importedText = `Every token that was issued until now has ended: devices begin a new session by
themselves, users log in again. What was revoked after the file was written is not.
`

func stateImportCommand(p *program) *cobra.Command {
	var keep, newKeys bool
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Write a state file to etcd, where no state is yet",
		Long: `Writes a state file, a backup or what state export wrote, to the place in etcd that the
configuration names, and compares both. There must be no state, or an empty one. If it is
interrupted, no server begins with a part of a state: run it again with the same file.

Stop the server of a state file before. What happened since the file was written is not in
it: which messages were taken, which tokens renewed, who was revoked. So every token that
was issued until now ends: devices begin a new session by themselves, users log in again.
The enrollments in a backup are imported, too; a file of its own brings msl-hsm enrollment
import.
With --keep-tokens they go on: for a file whose server was stopped before and took no
message since.`,
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
			sum, err := r.ImportState(keep, copying(line))
			line.clear()
			if err := admin.Tell(c, nil, "state import", args[0], err); err != nil {
				return err
			}
			fmt.Fprintf(p.stdout, "imported %s to %s: %d entities, %d users\n", args[0], &c.Server.State, sum.Entities, sum.Users)
			if !keep {
				fmt.Fprint(p.stdout, importedText)
			}
			return importAttached(p, c, r, args[0])
		},
	}
	c.Flags().BoolVar(&keep, "keep-tokens", false, "let the tokens of before go on, and messages be replayed that were taken since")
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
		fmt.Fprintf(p.stderr, "%s has enrollments, but the configuration names no place in etcd for them, so they were left out; set server.enrollment.state to etcd, and run msl-hsm enrollment import %s\n", path, admin.Quoted(path))
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

// copying returns what tells how many records were copied.
func copying(g *progressLine) func(records int) {
	return func(records int) { g.tell("copied %d records", records) }
}
