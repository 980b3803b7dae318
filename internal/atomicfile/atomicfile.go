// Package atomicfile writes files that are either complete or absent.
//
// [Replace] puts a new version of a file in place of the old one, [Create] makes a file
// that must not exist yet, [Publish] gives a finished file its name, and [Aside] keeps an
// old version. The first two write a temporary file in the same directory, sync it to disk
// and only then rename it, so that a reader, a crash or a full disk sees the old file or the
// new one and nothing in between. On an error the old file is unchanged and nothing is left
// behind. A process that dies partway may leave a file whose name begins with ".new-", which
// nothing reads; the first write of the same user to that directory after an hour removes it.
// [Open] is for files that are not replaced, such as logs.
//
// The temporary file never existed before, and its name cannot be guessed, so no other
// user with write access to the directory can redirect the bytes by placing a link
// there first. Permissions, owner and other names (hard links) of the old file do not
// carry over to the new one.
//
// If two processes replace one file at the same moment, the file is not corrupted, but
// one of the two versions is lost: if neither may be lost, also use a lock.
package atomicfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// DefaultMode is the permissions of a file whose mode is given as 0.
const DefaultMode fs.FileMode = 0o600

// ErrUnsynced means that a file was written under its name, but its directory could not
// be synced to disk: a power loss may undo the change.
var ErrUnsynced = errors.New("it is in place, but a loss of power may undo that")

// Replace writes data as the content of the file at path, with the permissions mode
// less the umask. The file need not exist.
//
// If path is a symbolic link, as in a managed configuration, the link stays, and the
// file it leads to is replaced; the new file is written beside that one. Only links
// that belong to this user or to root are followed. A link of another user, a link that
// leads to no file, and a path that is not a regular file are errors, and nothing is
// written. An error is a [*fs.PathError] about path.
func Replace(path string, data []byte, mode fs.FileMode) error {
	target, err := settle(path)
	if err == nil {
		err = write(target, data, mode, (*os.Root).Rename)
	}
	return about("replace", path, err)
}

// Create makes a file with the content data, and the permissions mode less the umask.
// If the name exists already, even as a dangling link, the error is fs.ErrExist and
// nothing changes. An error is a [*fs.PathError] about path.
func Create(path string, data []byte, mode fs.FileMode) error {
	if there(path) { // even if nothing can be written there
		return about("create", path, syscall.EEXIST)
	}
	return about("create", path, write(path, data, mode, link))
}

// there reports whether a path exists, even if only as a link.
func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil && filepath.Base(path) != "." && !os.IsPathSeparator(path[len(path)-1])
}

// Aside gives the file at path a second, unused name in the same directory: the file's
// name with suffix, and with a number if that is taken. The file keeps its own name until
// another file takes it, through [Replace], which follows the same links. On a file system
// without hard links the second name is that of a copy. An error is a [*fs.PathError] about
// path.
func Aside(path, suffix string) (name string, err error) { return aside(path, suffix, os.Link) }

func aside(path, suffix string, link func(from, to string) error) (name string, err error) {
	file, err := settle(path)
	if err != nil {
		return "", about("keep", path, err)
	}
	name = file + suffix
	for n := 2; ; n++ {
		err := link(file, name)
		if linkless(err) {
			err = duplicate(file, name)
		}
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", about("keep", path, err)
		}
		name = fmt.Sprintf("%s%s-%d", file, suffix, n)
	}
}

// duplicate makes a copy of a file under an unused name.
func duplicate(file, name string) error {
	i, err := os.Stat(file)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return write(name, data, i.Mode().Perm(), link)
}

// Publish gives a file that was written and synced, in the directory of path or below it, the
// name path as well, on file systems without hard links instead. If that name exists already,
// the error is fs.ErrExist and nothing changes. An error is a [*fs.PathError] about path.
func Publish(file, path string) error {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return about("create", path, err)
	}
	defer dir.Close()
	from, err := filepath.Rel(filepath.Dir(path), file)
	if err == nil {
		err = link(dir, from, filepath.Base(path))
	}
	if err == nil && syncRoot(dir) != nil {
		err = ErrUnsynced
	}
	return about("create", path, err)
}

// Open opens a file that is written in place, such as a log or a lock, or makes it if flag
// has [os.O_CREATE]. Links are followed as by [Replace], but one of this user or of root may
// lead to a file that does not exist yet. An error is a [*fs.PathError] about path.
func Open(path string, flag int, mode fs.FileMode) (*os.File, error) {
	end, info, err := resolve(path)
	if err != nil {
		return nil, about("open", path, err)
	}
	if info == nil || info.Mode().Type() != fs.ModeSymlink { // the kernel's own links have to be followed
		flag |= noFollow
	}
	f, err := os.OpenFile(end, flag, mode)
	if err != nil {
		return nil, about("open", path, err)
	}
	return f, nil
}

// End returns the path to which the links at path lead, followed as by [Open]: the file there is
// the one to make. An error is a [*fs.PathError] about path.
func End(path string) (string, error) {
	end, _, err := resolve(path)
	return end, about("open", path, err)
}

// SyncDir syncs a directory to disk: until then a power loss may remove a new file.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(SyncOpen(d), d.Close())
}

// write makes the file under a temporary name; publish gives it the final one.
func write(path string, data []byte, mode fs.FileMode, publish func(dir *os.Root, from, to string) error) error {
	directory, name := filepath.Split(path)
	if name == "" {
		return syscall.EISDIR
	}
	if directory == "" {
		directory = "."
	}
	// Everything happens in the open directory, even if it is renamed in the meantime.
	dir, err := os.OpenRoot(directory)
	if err != nil {
		return err
	}
	defer dir.Close()
	sweep(dir)
	temporary, err := stage(dir, data, mode)
	if err != nil {
		return err
	}
	err = publish(dir, temporary, name)
	dir.Remove(temporary) // does nothing after a rename
	if err != nil {
		return err
	}
	if err := syncRoot(dir); err != nil {
		return errors.Join(ErrUnsynced, err)
	}
	return nil
}

const (
	temporaryPrefix = ".new-"
	randomText      = 26        // base32 letters and digits after the prefix
	abandoned       = time.Hour // age at which no process is still writing a file
)

// sweep removes what processes that died left in the directory. A failure does not affect
// the file being written, and the next write tries again.
func sweep(dir *os.Root) {
	left, _ := fs.Glob(dir.FS(), temporaryPrefix+strings.Repeat("[2-7A-Z]", randomText))
	for _, name := range left {
		if f, err := dir.Lstat(name); err == nil && Trusted(f) && time.Since(f.ModTime()) > abandoned {
			dir.Remove(name)
		}
	}
}

// stage writes a new file to disk and returns its name.
func stage(dir *os.Root, data []byte, mode fs.FileMode) (name string, err error) {
	if mode == 0 {
		mode = DefaultMode
	}
	name = temporaryPrefix + rand.Text()[:randomText]
	// O_EXCL: an existing link of that name is an error, too (POSIX, open).
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

// link gives a file an unused name: unlike a rename, a link does not replace an
// existing file.
func link(dir *os.Root, from, to string) error {
	err := dir.Link(from, to)
	if linkless(err) {
		return reserve(dir, from, to)
	}
	return err
}

// linkless reports whether an error may be that of a file system without hard links, as on a
// USB stick.
func linkless(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported)
}

// reserve first creates an empty file with the name, which a crash would leave behind.
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
	return errors.Join(SyncOpen(d), d.Close())
}

// SyncOpen is [SyncDir] for an open directory. If the system or the file system does not
// support syncing directories (EINVAL), that counts as done: nothing more can be done.
func SyncOpen(d *os.File) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	if err := d.Sync(); !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// about makes an error refer to the caller's path: the name of the temporary file would
// mean nothing to the user.
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
