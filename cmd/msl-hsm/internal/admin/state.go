package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// StatePath returns the path of the state file.
func StatePath(c *config.Config, flag string) (string, error) {
	config.Override(&c.Server.State, flag)
	if c.Server.State == "" {
		return "", exit.Usagef("no state file: give --state FILE, or server.state in the configuration")
	}
	return c.Server.State, nil
}

// OpenState opens the state file of the server, which must exist.
func OpenState(c *config.Config, flag string) (*bolt.Server, error) {
	path, err := StatePath(c, flag)
	if err != nil {
		return nil, err
	}
	s, err := bolt.ReopenServer(path)
	if err != nil {
		return nil, Unusable(path, err)
	}
	s.PasswordCost(c.Server.Argon2.Cost())
	return s, nil
}

// Unusable adds to the error of a state file that does not open what to do about it.
func Unusable(path string, err error) error {
	begin := "msl-hsm state init --state " + Quoted(path)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolt.ErrEmpty):
		return fmt.Errorf("%s is empty: restore a backup with msl-hsm state restore, or remove it and run %s: %w", path, begin, bolt.ErrEmpty)
	case errors.Is(err, fs.ErrNotExist) && !isDirectoryMissing(path):
		return exit.Usagef("no state file %s: correct the path or restore a backup; if the server is new, run %s: %w", path, begin, fs.ErrNotExist)
	case errors.Is(err, bolt.ErrDamaged):
		return fmt.Errorf("%w; msl-hsm state restore FILE puts a backup in its place", err)
	}
	return err
}

func isDirectoryMissing(path string) bool {
	_, err := os.Stat(filepath.Dir(path))
	return errors.Is(err, fs.ErrNotExist)
}

// Quoted quotes a word for a shell.
func Quoted(word string) string {
	if strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+=,") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Absent reports whether path, or the target of a link there, does not exist.
func Absent(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// MakeState makes the state file if it is missing, and reports whether it did.
func MakeState(path string) (bool, error) {
	if path == "" || !Absent(path) {
		return false, nil
	}
	s, err := bolt.CreateServer(path)
	if err != nil {
		return false, err
	}
	return true, s.Close()
}

// MakeEnrollments makes the file of enrollments if it is missing and devices enroll here.
func MakeEnrollments(path string) (bool, error) {
	if path == "" || !Absent(path) {
		return false, nil
	}
	f, err := enroll.OpenFile(path)
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

// InitState makes whichever of the two files is missing, and returns their names.
func InitState(c *config.Config) (made []string, err error) {
	for _, f := range []struct {
		path string
		make func(path string) (bool, error)
	}{{c.Server.State, MakeState}, {c.Server.Enrollment.State, MakeEnrollments}} {
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

// InitNewState makes the files of a new server. An existing file is an error.
func InitNewState(c *config.Config) ([]string, error) {
	path, err := StatePath(c, "")
	if err != nil {
		return nil, err
	}
	made, err := InitState(c)
	if err == nil && len(made) == 0 {
		return nil, fmt.Errorf("the state file %s already exists: nothing was changed", path)
	}
	return made, err
}

// BeginState makes the state of a server that is starting, if begin is set.
func BeginState(c *config.Config, begin bool, log *slog.Logger) error {
	if !begin {
		return findEnrollments(c)
	}
	made, err := InitNewState(c)
	if err != nil {
		return fmt.Errorf("%w; start without --init-state", err)
	}
	log.Info("made the state of a new server", "files", made)
	return nil
}

// findEnrollments requires the file of enrollments to exist.
func findEnrollments(c *config.Config) error {
	path := c.Server.Enrollment.State
	if path == "" || !Absent(path) {
		return nil
	}
	return exit.Usagef("no enrollment file %s: correct the path or restore a backup; if no device has enrolled yet, run msl-hsm state init: %w", path, fs.ErrNotExist)
}
