package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

func stateSignCommand(p *program) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "sign",
		Short: "Declare a state file correct, and authenticate it as it is",
		Long: `Accepts the contents of the state file as correct, whoever wrote them, and authenticates
them with the key that authenticates tokens; likewise the file of enrollments, if the
configuration names one. With --state it signs only that file, such as a backup with the
enrollments in it.

A server does that on its own with a file that was never authenticated. This is for a file
that a server refuses as not authentic although you know that it is correct: a backup from
before files were authenticated, or a file whose key is gone. Stop the server first, and
review msl-hsm entity list and msl-hsm user list before you start it.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			c, file, err := p.stateFile(path)
			if err != nil {
				return err
			}
			if err := admin.Stopped(file, "sign it"); err != nil {
				return err
			}
			done, err := admin.SignState(c, file, path == "")
			if err := admin.Tell(c, nil, "state sign", file, err); err != nil {
				return err
			}
			printSigning(p, file, done)
			return nil
		},
	}
	stateFlag(c, &path)
	return c
}

func printSigning(p *program, file string, s admin.Signing) {
	fmt.Fprintf(p.stdout, "signed %s: %s, %d revoked; %s, %d revoked\n", file, exit.Count(s.Entities, "entity", "entities"), s.EntitiesRevoked, exit.Count(s.Users, "user", "users"), s.UsersRevoked)
	if s.Enrollments != "" {
		fmt.Fprintf(p.stdout, "signed %s\n", s.Enrollments)
	}
	if s.Unmarked != nil {
		fmt.Fprintf(p.stderr, "the key store cannot record that the file is authenticated: %s\n", exit.OneLine(s.Unmarked))
	}
}
