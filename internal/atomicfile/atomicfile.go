// Package atomicfile writes files that are whole or not there at all.
//
// [Replace] puts a new version of a file in the place of the old one, [Create]
// makes a file that must not exist yet, and [Aside] keeps an old version. The first
// two write a file of another name in the same directory, bring it to the disk and
// only then give it its name, so that a reader, a crash and a full disk see the old
// file or the new one and nothing in between. On an error the old file is as it was, and nothing is left behind; a
// process that dies in the middle may leave a file whose name begins with
// ".new-", which nobody reads and which may be deleted.
//
// The file that is written never existed before, and has a name that cannot be
// guessed, so nobody who may write to the directory can have the bytes go
// elsewhere by a link that was there first. Permissions, owner and other names
// (hard links) of the old file do not pass to the new one.
//
// Two processes that replace one file at the same moment do not harm it, but one
// of the two versions is lost: what must not be lost needs a lock besides.
package atomicfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// DefaultMode are the permissions of a file whose mode is given as 0.
const DefaultMode fs.FileMode = 0o600

// ErrUnsynced says that a file is written and has its name, but that the system
// could not bring its directory to the disk: a loss of power may take it back.
var ErrUnsynced = errors.New("it is in its place, but a loss of power may undo that")

// Replace gives the file at path the content data, and the permissions mode less
// the umask. It need not exist before.
//
// Where path is a symbolic link, as a managed configuration may have it, the link
// stays and the file that it leads to is replaced, beside which the new one is
// written. Only links that belong to this user or to root are followed; one of
// somebody else, one that leads to no file, and a path that is something other
// than a file are errors, and nothing is written. An error is a [*fs.PathError]
// about path.
func Replace(path string, data []byte, mode fs.FileMode) error {
	target, err := settle(path)
	if err == nil {
		err = write(target, data, mode, (*os.Root).Rename)
	}
	return about("replace", path, err)
}

// Create makes a file with the content data, and the permissions mode less the
// umask. Whatever has that name already, a link that leads nowhere included, is
// fs.ErrExist and stays as it is. An error is a [*fs.PathError] about path.
func Create(path string, data []byte, mode fs.FileMode) error {
	return about("create", path, write(path, data, mode, link))
}

// Aside gives the file at path a second name beside it, which nothing had before: that
// of the file with suffix, and with a number if that is taken. The file keeps its own
// name until another one takes it: [Replace], which follows the same links. An error is
// a [*fs.PathError] about path.
func Aside(path, suffix string) (name string, err error) {
	file, err := settle(path)
	if err != nil {
		return "", about("keep", path, err)
	}
	name = file + suffix
	for n := 2; ; n++ {
		err := os.Link(file, name)
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", about("keep", path, err)
		}
		name = fmt.Sprintf("%s%s-%d", file, suffix, n)
	}
}

// SyncDir brings the names in a directory to the disk: a new file is not safe
// from a loss of power before.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(syncOpen(d), d.Close())
}

// write makes the file under a name of its own, until publish gives it the other.
func write(path string, data []byte, mode fs.FileMode, publish func(dir *os.Root, from, to string) error) error {
	directory, name := filepath.Split(path)
	if name == "" {
		return syscall.EISDIR
	}
	if directory == "" {
		directory = "."
	}
	// Everything happens in the directory that is open, whatever becomes of its name.
	dir, err := os.OpenRoot(directory)
	if err != nil {
		return err
	}
	defer dir.Close()
	temporary, err := stage(dir, data, mode)
	if err != nil {
		return err
	}
	err = publish(dir, temporary, name)
	dir.Remove(temporary) // after a rename there is none
	if err != nil {
		return err
	}
	if err := syncRoot(dir); err != nil {
		return errors.Join(ErrUnsynced, err)
	}
	return nil
}

// stage writes a new file to the disk and returns its name.
func stage(dir *os.Root, data []byte, mode fs.FileMode) (name string, err error) {
	if mode == 0 {
		mode = DefaultMode
	}
	name = ".new-" + rand.Text()
	// O_EXCL: a link of that name is an error, too (POSIX, open).
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		dir.Remove(name)
		return "", err
	}
	return name, nil
}

// link gives a file a name that nothing has: unlike a rename, a link does not
// replace what is there.
func link(dir *os.Root, from, to string) error {
	err := dir.Link(from, to)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		return reserve(dir, from, to) // a file system without hard links, as of a memory stick
	}
	return err
}

// reserve takes the name with an empty file first, which is what a crash leaves.
func reserve(dir *os.Root, from, to string) error {
	f, err := dir.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, DefaultMode)
	if err != nil {
		return err
	}
	if err = errors.Join(f.Close(), dir.Rename(from, to)); err != nil {
		dir.Remove(to)
	}
	return err
}

func syncRoot(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(syncOpen(d), d.Close())
}

// syncOpen takes a system that has no such thing for directories, or a file
// system (EINVAL), as done: there is nothing more to do.
func syncOpen(d *os.File) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	if err := d.Sync(); !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// about makes an error one of the path that the caller knows: the name of the
// temporary file says nothing to anybody.
func about(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: cause(err)}
}

func cause(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.Is(err, ErrUnsynced):
		return err
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
