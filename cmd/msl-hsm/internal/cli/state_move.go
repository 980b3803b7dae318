package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

func stateExportCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "export FILE",
		Short: "Write the state that is in etcd to a file, also while servers run",
		Long: `Writes the state that is in etcd, as it is at one moment, to FILE, which is a state file:
a backup, or the beginning of a server whose state is in a file. It makes sure before that
nobody without the keys of the servers changed the state, and checks the file afterwards.
FILE must not be there, and gets mode 0600. Keep it as the state itself: it has the sealed
keys of devices and the hashes of passwords.`,
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
	var keep bool
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Write a state file to etcd, where no state is yet",
		Long: `Writes a state file, a backup or what state export wrote, to the place in etcd that the
configuration names, and compares both. There must be no state, or an empty one. If it is
interrupted, no server begins with a part of a state: run it again with the same file.

Stop the server of a state file before. What happened since the file was written is not in
it: which messages were taken, which tokens renewed, who was revoked. So every token that
was issued until now ends: devices begin a new session by themselves, users log in again.
With --keep-tokens they go on: for a file whose server was stopped before and took no
message since.`,
		Args: want("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := p.configure()
			if err != nil {
				return err
			}
			if admin.Absent(args[0]) {
				return exit.Usagef("no state file or backup %s", args[0])
			}
			line := newProgress(p.stderr)
			sum, err := admin.ImportState(c, args[0], keep, copying(line))
			line.clear()
			if err := admin.Tell(c, nil, "state import", args[0], err); err != nil {
				return err
			}
			fmt.Fprintf(p.stdout, "imported %s to %s: %d entities, %d users\n", args[0], &c.Server.State, sum.Entities, sum.Users)
			if !keep {
				fmt.Fprint(p.stdout, importedText)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&keep, "keep-tokens", false, "let the tokens of before go on, and messages be replayed that were taken since")
	return c
}

// copying returns what tells how many records were copied.
func copying(g *progressLine) func(records int) {
	return func(records int) { g.tell("copied %d records", records) }
}
