package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// A lost state file must not be mistaken for that of a new server, or revoked entities
// return and recorded messages are answered again. A file is therefore made only by
// msl-hsm state init and serve --init-state, with which the operator says that the server
// is new; by key create --set server and ca init when they make the first keys, under
// which nothing can have been issued; and by entity add and user add, which report what
// they made. Every other command requires an existing file.

func stateFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "state", "", "state `FILE` of the server")
}

// stateFile returns the configuration, and the path of the state file.
func (p *program) stateFile(flag string) (*config.Config, string, error) {
	c, err := p.configure()
	if err != nil {
		return nil, "", err
	}
	path, err := admin.StatePath(c, flag)
	return c, path, err
}

// withState runs a verb that changes the state file or reads it.
func (p *program) withState(path string, do func(admin.Registry) error) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	c.Server.State.Override(path)
	own := admin.KeysOf(c)
	defer exit.Closing(&err, own)
	return withRegistry(p, own, do)
}

// withRegistry runs a verb with the state, and the keys if it needs them.
func withRegistry(p *program, own *admin.Keys, do func(admin.Registry) error) (err error) {
	state, err := own.Registry()
	if err != nil {
		return err
	}
	defer exit.Closing(&err, state)
	return warned(p, own, do(state))
}

// warned warns that records were read that nothing verified, unless the verb failed anyway.
func warned(p *program, own *admin.Keys, err error) error {
	if missing := own.Missing(); err == nil && missing != nil {
		fmt.Fprintf(p.stderr, "warning: the records are not verified, since the key store was not found: %s\n", exit.OneLine(missing))
	}
	return err
}

// withNewState runs a verb that registers an entity or a user, and may therefore be the
// first.
func (p *program) withNewState(path string, do func(admin.Registry) error) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	c.Server.State.Override(path)
	own := admin.KeysOf(c)
	defer exit.Closing(&err, own)
	made, err := own.MakeState()
	if err != nil {
		return err
	}
	if err = withRegistry(p, own, do); err == nil {
		tellMade(p.stderr, made, c.Server.State.Path())
	}
	return err
}

// tellMade reports a file that was made: its path may be a mistake.
func tellMade(log io.Writer, made bool, path string) {
	if made {
		fmt.Fprintf(log, "made the state file %s\n", path)
	}
}

func stateInitCommand(p *program) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "init",
		Short: "Make the state file of a new server",
		Long: `Makes the state file of a new server, and the file of enrollments if the
configuration names one. Existing files are left alone.

A server that lost its state file is not new: with an empty one it would accept
recorded messages again, and revoked entities and users. Restore a backup instead. If there
is none, make new keys, and destroy the older ones before a server starts:

  msl-hsm key create --set server --rotate
  msl-hsm state init
  msl-hsm key retire --force --yes`,
		Args: want(),
		RunE: func(*cobra.Command, []string) (err error) {
			c, err := p.configure()
			if err != nil {
				return err
			}
			c.Server.State.Override(path)
			own := admin.KeysOf(c)
			defer exit.Closing(&err, own)
			made, err := own.InitNewState()
			if len(made) > 0 {
				err = admin.Tell(c, nil, "state init", strings.Join(made, ", "), err)
			}
			for _, file := range made {
				fmt.Fprintf(p.stdout, "made %s\n", file)
			}
			return err
		},
	}
	stateFlag(c, &path)
	return c
}
