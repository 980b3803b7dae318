package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/msl/state/etcd"
)

// StatePath returns the path of the state file.
func StatePath(c *config.Config, flag string) (string, error) {
	if err := FindState(c, flag); err != nil {
		return "", err
	}
	if c.Server.State.Shared() {
		return "", exit.Usagef("the state is in etcd, and this is for one in a file; msl-hsm state export copies it to a file")
	}
	return c.Server.State.Path(), nil
}

// FindState checks that the configuration, or a flag, says where the state is.
func FindState(c *config.Config, flag string) error {
	c.Server.State.Override(flag)
	if c.Server.State.IsZero() {
		return exit.Usagef("no state file: give --state FILE, or server.state in the configuration")
	}
	return nil
}

// OpenState opens the existing state of the server, for a command.
func OpenState(c *config.Config, flag string) (*State, error) {
	if err := FindState(c, flag); err != nil {
		return nil, err
	}
	return KeysOf(c).openStateAndClose()
}

// OpenStateBy is OpenState with a key store that was opened before, or could not be.
func OpenStateBy(c *config.Config, store keys.Store, err error) (*State, error) {
	if err := FindState(c, ""); err != nil {
		return nil, err
	}
	return (&Keys{c: c, store: store, err: err}).openStateAndClose()
}

// openStateAndClose is openState; the state closes the keys.
func (r *Keys) openStateAndClose() (*State, error) {
	s, err := r.openState()
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	s.Closer = both{s.Closer, r}
	return s, nil
}

func (r *Keys) openState() (*State, error) {
	open := func() (*State, error) { return r.openFile(authkv.Judge) }
	if r.c.Server.State.Shared() {
		open = r.administer
	}
	s, err := open()
	if err != nil {
		return nil, err
	}
	s.store = r.store
	return s, nil
}

// A State is the state of a server, in a file or in etcd.
type State struct {
	*state.Server
	File    *bolt.Server                        // or nil
	Cluster *etcd.Server                        // to be verified, or nil
	Members func(context.Context) []etcd.Member // of the cluster; nil for a file
	renew   func(context.Context) error         // the authentication in the cluster; nil for a file
	store   keys.Store                          // whose keys authenticate the state, or nil
	io.Closer
}

func (r *Keys) openFile(trust authkv.Trust) (*State, error) {
	path := r.c.Server.State.Path()
	s, err := r.states(trust).Reopen(path)
	if err != nil {
		return nil, r.unusable(path, err)
	}
	s.PasswordCost(r.c.Server.Argon2.Cost())
	return &State{Server: s.Server, File: s, Closer: s}, nil
}

// Check reads every record, and every page of a file.
func (s *State) Check() (state.Summary, error) {
	if err := s.verify(); err != nil {
		return state.Summary{}, err
	}
	if s.File != nil {
		return s.File.Check()
	}
	return s.Summary()
}

// Entities lists authentic entities.
func (s *State) Entities() ([]state.EntityRecord, error) {
	if err := s.verify(); err != nil {
		return nil, err
	}
	return s.Server.Entities()
}

// Users lists authentic users.
func (s *State) Users() ([]state.UserRecord, error) {
	if err := s.verify(); err != nil {
		return nil, err
	}
	return s.Server.Users()
}

// verify checks that a state which others can write is authentic.
func (s *State) verify() error {
	switch {
	case s.Cluster != nil:
		return s.Cluster.Verify(context.Background())
	case s.File != nil:
		return s.File.VerifyRecords(context.Background())
	}
	return nil
}

// Authentic reports whether changes to the state by someone without the server's keys are
// detected.
func (s *State) Authentic() bool { return s.File == nil || s.File.Verdict.Authentic }

// Unusable adds what to do to the error about a state file that does not open.
func Unusable(path string, err error) error {
	begin := "msl-hsm state init --state " + Quoted(path)
	var ofStore storeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ofStore):
		return ofStore.error
	case errors.Is(err, bolt.ErrEmpty):
		return exit.OfKind(bolt.ErrEmpty, "%s is empty: restore a backup with msl-hsm state restore, or remove it and run %s", path, begin)
	case errors.Is(err, fs.ErrNotExist) && !isDirectoryMissing(path):
		return exit.WithCode(exit.OfKind(fs.ErrNotExist, "no state file %s: correct the path or restore a backup; if the server is new, run %s", path, begin), exit.Usage)
	case errors.Is(err, kv.ErrUnfinished):
		return exit.OfKind(kv.ErrUnfinished, "writing %s was interrupted, and a part of the state is missing there: remove it, and write it again", path)
	case errors.Is(err, bolt.ErrDamaged):
		return fmt.Errorf("%w; msl-hsm state restore FILE puts a backup in its place", err)
	case errors.Is(err, bolt.ErrUnsigned):
		return fmt.Errorf("%w: restore a backup, and find out who else can write there; if it dates from before files were authenticated, and you know that it is right, run msl-hsm state sign --state %s", err, Quoted(path))
	case errors.Is(err, bolt.ErrOtherKey):
		return fmt.Errorf("%w: if it was used with another key store, correct keystore; else restore a backup, and find out who else can write there; if you replaced the key yourself, run msl-hsm state sign --state %s", err, Quoted(path))
	case errors.Is(err, bolt.ErrForged):
		return fmt.Errorf("%w: restore a backup, and find out who else can write there", err)
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

// Absent reports whether path, or the target of a link there, is known not to exist.
func Absent(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// lacking is Absent for a file to be made, if there is a path. What cannot be looked up is not
// taken for a file that is there.
func lacking(path string) (bool, error) {
	if path == "" {
		return false, nil
	}
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, err
}

// MakeState makes the state file if it is missing, for a command that may be the first,
// and reports whether it did. A state in etcd, where a wrong prefix may easily be another
// server's, is not made implicitly.
func (r *Keys) MakeState() (bool, error) {
	if r.c.Server.State.Shared() {
		return false, nil
	}
	path := r.c.Server.State.Path()
	if lacks, err := lacking(path); !lacks {
		return false, err
	}
	return makeWhole(path, func(making string) (io.Closer, error) { return r.states(authkv.Vouch).Create(making) })
}

// MakeEnrollments makes the records of devices if they are missing and devices enroll here,
// and reports whether it did.
func (r *Keys) MakeEnrollments() (bool, error) {
	if r.c.Server.Enrollment.Shared() {
		return makeSharedEnrollments(r)
	}
	path := r.c.Server.Enrollment.File()
	if lacks, err := lacking(path); !lacks {
		return false, err
	}
	return makeWhole(path, func(making string) (io.Closer, error) { return r.enrollments(authkv.Vouch).Open(making) })
}

// InitState makes the state and the records of devices if they are missing, and returns
// the names of those made.
func (r *Keys) InitState() (made []string, err error) {
	makeMain := r.MakeState
	if r.c.Server.State.Shared() {
		makeMain = func() (bool, error) { return makeShared(r) }
	}
	for _, f := range []struct {
		name string
		make func() (bool, error)
	}{{r.c.Server.State.String(), makeMain}, {placeOfEnrollments(r.c), r.MakeEnrollments}} {
		done, err := f.make()
		if err != nil {
			return made, err
		}
		if done {
			made = append(made, f.name)
		}
	}
	return made, nil
}

// InitNewState makes the files of a new server. An existing file is an error.
func (r *Keys) InitNewState() ([]string, error) {
	c := r.c
	if err := FindState(c, ""); err != nil {
		return nil, err
	}
	made, err := r.InitState()
	if err == nil && len(made) == 0 {
		what := "state file"
		if c.Server.State.Shared() {
			what = "state"
		}
		return nil, exit.OfKind(fs.ErrExist, "the %s %s already exists: nothing was changed", what, &c.Server.State)
	}
	return made, err
}

// BeginState makes the state of a server that is starting, if begin is set.
func (r *Keys) BeginState(begin bool, log *slog.Logger) error {
	if !begin {
		return findEnrollments(r.c)
	}
	made, err := r.InitNewState()
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w; start without --init-state", err)
	}
	if err != nil {
		return err
	}
	log.Info("made the state for a new server", "files", made)
	return nil
}

// findEnrollments requires the file of enrollments to exist.
func findEnrollments(c *config.Config) error {
	path := c.Server.Enrollment.File()
	if path == "" || !Absent(path) {
		return nil
	}
	return exit.WithCode(exit.OfKind(fs.ErrNotExist, "no enrollment file %s: correct the path or restore a backup; if no device has enrolled yet, run msl-hsm state init", path), exit.Usage)
}
