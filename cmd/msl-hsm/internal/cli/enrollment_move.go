package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

func enrollmentExportCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "export FILE",
		Short: "Write the enrollments in etcd to a file, even while servers run",
		Long: `Writes a snapshot of the enrollments in etcd to FILE, for server.enrollment.state. It first
makes sure that nobody without the keys of the servers changed them, and checks the file
afterwards. FILE must not exist, and gets mode 0600. The file of msl-hsm state export
includes them, too.`,
		Args: want("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := p.configure()
			if err != nil {
				return err
			}
			states, err := admin.ExportEnrollments(c, args[0])
			if err := admin.Tell(c, nil, "enrollment export", args[0], err); err != nil {
				return err
			}
			_, err = fmt.Fprintf(p.stdout, "wrote %s%s\n", args[0], admin.Enrolled(states))
			return err
		},
	}
}

func enrollmentImportCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Write a file of enrollments to etcd, which must have none yet",
		Long: `Writes a file of enrollments, or those in a backup of a state, beside the state in etcd,
and checks them. There must be no enrollments yet. After an interruption, run it again with
the same file: no server starts with a part of them.

Stop the file's server first. Decisions made after the file was written are lost: devices
rejected or revoked since then are neither.`,
		Args: want("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := p.configure()
			if err != nil {
				return err
			}
			if admin.Absent(args[0]) {
				return exit.Usagef("no file of enrollments or backup %s: correct the path", args[0])
			}
			line := newProgress(p.stderr)
			states, err := admin.ImportEnrollments(c, args[0], copying(line))
			line.clear()
			if err := admin.Tell(c, nil, "enrollment import", args[0], err); err != nil {
				return err
			}
			_, err = fmt.Fprintf(p.stdout, "imported %s%s\n", args[0], admin.Enrolled(states))
			return err
		},
	}
}
