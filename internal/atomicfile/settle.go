package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks is the number of links that Linux follows for one path (path_resolution(7)).
const maxLinks = 40

// ErrForeignLink: another user, who is not root, made a link on the way.
var ErrForeignLink = errors.New("it is a link of another user: delete it, or name the file that it leads to")

var (
	errDangling = errors.New("the link leads to no file: delete it, or make the file that it names")
	errNotFile  = errors.New("something other than a file is there: name another path")
)

// settle follows the links at path to the file that a rename must replace.
func settle(path string) (string, error) {
	end, info, err := resolve(path)
	switch {
	case err != nil:
		return "", err
	case info == nil && end != path:
		return "", errDangling
	case info != nil && !info.Mode().IsRegular():
		return "", errNotFile
	}
	return end, nil
}

// resolve follows the links at path, up to one of the kernel's own. info is nil if there is
// nothing at the end.
func resolve(path string) (end string, info fs.FileInfo, err error) {
	for range maxLinks {
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return path, nil, nil
		case err != nil:
			return "", nil, err
		case info.Mode().Type() != fs.ModeSymlink, kernels(path):
			return path, info, nil
		case !Trusted(info):
			return "", nil, ErrForeignLink
		}
		if path, err = follow(path); err != nil {
			return "", nil, err
		}
	}
	return "", nil, syscall.ELOOP
}

// kernels reports whether a link is one of the kernel's, such as /dev/fd/3: nobody can plant
// it, and the text in it is not a path.
func kernels(link string) bool {
	dir, err := filepath.EvalSymlinks(filepath.Dir(link))
	return err == nil && strings.HasPrefix(dir, "/proc/")
}

// follow returns the target of a link. The link's directory is resolved first, and the
// rest is not cleaned: after a link to a directory, ".." is not the directory before it
// in the path.
func follow(path string) (string, error) {
	to, err := os.Readlink(path)
	if err != nil || filepath.IsAbs(to) {
		return to, err
	}
	directory, _ := filepath.Split(path)
	if directory == "" {
		directory = "."
	}
	directory, err = filepath.EvalSymlinks(directory)
	return directory + string(filepath.Separator) + to, err
}
