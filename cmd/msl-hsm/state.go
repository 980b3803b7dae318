package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// A state file that is lost must not be taken for that of a new server, or what
// was revoked comes back and recorded messages are answered again. So a file is
// made by msl-hsm state init and serve --init-state, where somebody says that the
// server is new; by key create --set server and ca init where they make the first
// keys, under which nothing can have been issued; and by entity add and user add,
// which say what they made. Every other command has to find one.

func stateFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "state", "", "state `FILE` of the server")
}

// statePath is the path of the state file.
func statePath(c *config, flag string) (string, error) {
	override(&c.Server.State, flag)
	if c.Server.State == "" {
		return "", usagef("no state file: give --state FILE, or server.state in the configuration")
	}
	return c.Server.State, nil
}

// stateFile is the configuration, and the path of the state file.
func (p *program) stateFile(flag string) (*config, string, error) {
	c, err := p.configure()
	if err != nil {
		return nil, "", err
	}
	path, err := statePath(c, flag)
	return c, path, err
}

// openState opens the state file of the server, which has to be there.
func openState(c *config, flag string) (*bolt.Server, error) {
	path, err := statePath(c, flag)
	if err != nil {
		return nil, err
	}
	s, err := bolt.ReopenServer(path)
	return s, unusable(path, err)
}

// unusable says what to do about a state file that does not open.
func unusable(path string, err error) error {
	begin := "msl-hsm state init --state " + quoted(path)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolt.ErrEmpty):
		return fmt.Errorf("%s is empty: restore a backup with msl-hsm state restore, or remove it and run %s: %w", path, begin, bolt.ErrEmpty)
	case errors.Is(err, fs.ErrNotExist) && !isDirectoryMissing(path):
		return usagef("no state file %s: correct the path or restore a backup; if the server is new, run %s: %w", path, begin, fs.ErrNotExist)
	case errors.Is(err, bolt.ErrDamaged):
		return fmt.Errorf("%w; msl-hsm state restore FILE puts a backup in its place", err)
	}
	return err
}

func isDirectoryMissing(path string) bool {
	_, err := os.Stat(filepath.Dir(path))
	return errors.Is(err, fs.ErrNotExist)
}

// quoted is a word for the shell.
func quoted(word string) string {
	if strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+=,") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// absent reports whether no file is at a path, or where a link at it leads.
func absent(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// makeState makes the state file if it is not there, and tells whether it did.
func makeState(path string) (bool, error) {
	if path == "" || !absent(path) {
		return false, nil
	}
	s, err := bolt.CreateServer(path)
	if err != nil {
		return false, err
	}
	return true, s.Close()
}

// makeEnrollments does it with the file of enrollments, if devices enroll here.
func makeEnrollments(path string) (bool, error) {
	if path == "" || !absent(path) {
		return false, nil
	}
	f, err := enroll.OpenFile(path)
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

// initState makes what is missing of both files, and names it.
func initState(c *config) (made []string, err error) {
	for _, f := range []struct {
		path string
		make func(path string) (bool, error)
	}{{c.Server.State, makeState}, {c.Server.Enrollment.State, makeEnrollments}} {
		done, err := f.make(f.path)
		if err != nil {
			return made, err
		}
		if done {
			made = append(made, f.path)
		}
	}
	return made, nil
}

// initNewState is for who says that the server is new.
func initNewState(c *config) ([]string, error) {
	path, err := statePath(c, "")
	if err != nil {
		return nil, err
	}
	made, err := initState(c)
	if err == nil && len(made) == 0 {
		return nil, fmt.Errorf("the state file %s already exists: nothing was changed", path)
	}
	return made, err
}

// beginState makes the state of a server that starts, if it is told to.
func beginState(c *config, begin bool, log *slog.Logger) error {
	if !begin {
		return findEnrollments(c)
	}
	made, err := initNewState(c)
	if err != nil {
		return fmt.Errorf("%w; start without --init-state", err)
	}
	log.Info("made the state of a new server", "files", made)
	return nil
}

// findEnrollments wants the file of enrollments to be there.
func findEnrollments(c *config) error {
	path := c.Server.Enrollment.State
	if path == "" || !absent(path) {
		return nil
	}
	return usagef("no enrollment file %s: correct the path or restore a backup; if no device has enrolled yet, run msl-hsm state init: %w", path, fs.ErrNotExist)
}

// withState runs a verb that changes the state file or reads it.
func (p *program) withState(path string, do func(registry) error) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	state, err := openRegistry(c, path)
	if err != nil {
		return err
	}
	defer closing(&err, state)
	return do(state)
}

// withNewState runs a verb that registers somebody, and so may be the first.
func (p *program) withNewState(path string, do func(registry) error) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	override(&c.Server.State, path)
	made, err := makeState(c.Server.State)
	if err != nil {
		return err
	}
	if err = p.withState(path, do); err == nil {
		p.tellMade(made, c.Server.State)
	}
	return err
}

// tellMade tells of a file that was made: its path may be a mistake.
func (p *program) tellMade(made bool, path string) {
	if made {
		fmt.Fprintf(p.stderr, "made the state file %s\n", path)
	}
}

func stateInitCommand(p *program) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "init",
		Short: "Make the state file of a new server",
		Long: `Makes the state file of a server that is new, and the file of enrollments if the
configuration names one. Files that are there are left alone.

A server that lost its state file is not new: with an empty one it takes recorded
messages again, and whoever was revoked. Restore a backup instead, or make new
issuer keys before.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			c, err := p.configure()
			if err != nil {
				return err
			}
			override(&c.Server.State, path)
			made, err := initNewState(c)
			for _, file := range made {
				fmt.Fprintf(p.stdout, "made %s\n", file)
			}
			return err
		},
	}
	stateFlag(c, &path)
	return c
}
