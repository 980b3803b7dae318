package admin

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/throwaway"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// Stopped returns an error if a server has the state file open.
func Stopped(path, what string) error {
	remote, err := Dial(path)
	if err != nil || remote == nil {
		return err
	}
	return errors.Join(fmt.Errorf("a server has %s open: stop it, then %s", path, what), remote.Close())
}

// BackupState writes a copy under a temporary name and renames it after verifying it.
func BackupState(c *config.Config, state, to string, force bool) (r StateReport, err error) {
	if err := checkTarget(state, to, force); err != nil {
		return r, err
	}
	f, err := throwaway.File(filepath.Dir(to), partOf(to))
	if err != nil {
		return r, noDirectory(to, err)
	}
	defer throwaway.Remove(f.Name())
	err = errors.Join(copyState(c, state, f), f.Sync(), f.Close())
	if err != nil {
		return r, err
	}
	if r, err = checkBackup(c, f.Name()); err != nil {
		return r, err
	}
	if !force {
		return r, named(f.Name(), to)
	}
	return r, errors.Join(os.Rename(f.Name(), to), atomicfile.SyncDir(filepath.Dir(to)))
}

// named gives a backup its name, which may have been taken in the meantime.
func named(made, to string) error {
	err := atomicfile.Publish(made, to)
	if errors.Is(err, fs.ErrExist) {
		return alreadyThere(to)
	}
	return err
}

func alreadyThere(to string) error {
	return exit.Usagef("%s already exists: name another file, or add --force", to)
}

// partOf begins the names of what is not yet complete, beside a file.
func partOf(file string) string { return filepath.Base(file) + ".part-" }

func noDirectory(file string, err error) error {
	if exit.IsAny(err, fs.ErrNotExist, syscall.ENOTDIR) {
		return fmt.Errorf("no directory for %s: make the directory, or name another file", file)
	}
	return err
}

// whole gives a new file its name when it is complete. Until then it is in a directory that an
// interruption removes.
func whole(path string, write func(made string) error) error {
	exists := exit.Usagef("%s already exists: name another file", path)
	if _, err := os.Lstat(path); err == nil {
		return exists
	}
	dir, err := throwaway.Dir(filepath.Dir(path), partOf(path))
	if err != nil {
		return noDirectory(path, err)
	}
	defer throwaway.Remove(dir)
	made := filepath.Join(dir, filepath.Base(path))
	if err := write(made); err != nil {
		return err
	}
	err = atomicfile.Publish(made, path)
	if errors.Is(err, fs.ErrExist) {
		return exists
	}
	return err
}

func checkTarget(state, to string, force bool) error {
	own, errOwn := os.Stat(state)
	there, err := os.Stat(to)
	_, errLink := os.Lstat(to)
	switch {
	case errOwn == nil && err == nil && os.SameFile(own, there):
		return exit.Usagef("%s is the state file itself: name another one", to)
	case err == nil && !there.Mode().IsRegular():
		return exit.Usagef("%s is not a file: name one", to)
	case errLink == nil && !force:
		return alreadyThere(to)
	}
	return nil
}

// copyState copies the state from a running server, or from the file.
func copyState(c *config.Config, state string, to *os.File) error {
	remote, err := Dial(state)
	if err != nil {
		return err
	}
	if remote != nil {
		return errors.Join(remote.callLong(http.MethodGet, "/state/snapshot", to), remote.Close())
	}
	s, err := OpenState(c, state)
	if err != nil {
		return err
	}
	err = Tell(c, nil, stateBackup, "", s.File.Snapshot(to))
	if err == nil && c.Server.Enrollment.File() != "" {
		err = copyEnrollments(c, s.store, to.Name())
	}
	return errors.Join(err, s.Close())
}

// attachEnrollments adds the enrollments to a backup of the state.
func attachEnrollments(backup string, f *enroll.File) error {
	var content bytes.Buffer
	if err := f.Snapshot(&content); err != nil {
		return err
	}
	return bolt.Attach(backup, content.Bytes())
}

// copyEnrollments attaches the enrollments from the file, which no server has open.
func copyEnrollments(c *config.Config, store keys.Store, backup string) error {
	if err := findEnrollments(c); err != nil {
		return err
	}
	f, err := openEnrollmentFile(c, store, authkv.Judge)
	if err != nil {
		return err
	}
	return errors.Join(attachEnrollments(backup, f), f.Close())
}

// checkBackup reads a backup completely. It must contain the enrollments if there are
// any.
func checkBackup(c *config.Config, path string) (r StateReport, err error) {
	if r.Summary, err = bolt.VerifyServer(path); err != nil {
		return r, err
	}
	content, err := bolt.Attached(path)
	switch {
	case err != nil:
		return r, err
	case content == nil && c.Server.Enrollment.File() != "":
		return r, errors.New("the running server gave no enrollments: it runs another version or configuration; restart it, or stop it for the backup")
	case content == nil:
		return r, nil
	}
	r.Enrollments, err = enroll.CheckCopy(content)
	return r, err
}

// Enrolled describes the enrollments in a backup.
func Enrolled(states map[enroll.State]int) string {
	if states == nil {
		return ""
	}
	n := 0
	for _, of := range states {
		n += of
	}
	return "; " + exit.Count(n, "enrollment", "enrollments")
}
