package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxLinks is the number of links that Linux follows for one path (path_resolution(7)).
const maxLinks = 40

var (
	errForeignLink = errors.New("it is a link of another user: delete it, or name the file that it leads to")
	errDangling    = errors.New("the link leads to no file: delete it, or make the file that it names")
	errNotFile     = errors.New("something other than a file is there: name another path")
)

// settle follows the links at path to the file that a rename must replace.
func settle(path string) (string, error) {
	for hop := range maxLinks {
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && hop == 0:
			return path, nil
		case errors.Is(err, fs.ErrNotExist):
			return "", errDangling
		case err != nil:
			return "", err
		case info.Mode().IsRegular():
			return path, nil
		case info.Mode().Type() != fs.ModeSymlink:
			return "", errNotFile
		case !trusted(info):
			return "", errForeignLink
		}
		if path, err = follow(path); err != nil {
			return "", err
		}
	}
	return "", syscall.ELOOP
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
