// Package throwaway makes files and directories that are removed when the program ends,
// even by a signal: [Sweep] removes all that are left, and is called by the code that
// handles the signal. The package itself handles no signals, so that a program that
// embeds a library decides that.
package throwaway

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// left are the paths of what was made and not yet removed.
var left = struct {
	sync.Mutex
	paths map[string]bool
}{paths: map[string]bool{}}

// Dir makes a new directory in the named one, or in the directory for temporary files if
// the name is empty, like [os.MkdirTemp]. The caller must call [Remove].
func Dir(in, pattern string) (path string, err error) {
	left.Lock()
	defer left.Unlock()
	if path, err = os.MkdirTemp(in, pattern); err != nil {
		return "", named(in, err)
	}
	note(path)
	return path, nil
}

// File makes a new file, like [os.CreateTemp]. The caller must close it, and call
// [Remove], even after renaming it.
func File(in, pattern string) (f *os.File, err error) {
	left.Lock()
	defer left.Unlock()
	if f, err = os.CreateTemp(in, pattern); err != nil {
		return nil, named(in, err)
	}
	note(f.Name())
	return f, nil
}

// named says of an error of the directory for temporary files which setting names it.
func named(in string, err error) error {
	if in == "" {
		return fmt.Errorf("the directory for temporary files (TMPDIR): %w", err)
	}
	return err
}

// note remembers a path, which stays the same if the working directory changes.
func note(path string) {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	left.paths[path] = true
}

// Remove removes what was made at a path, with everything in it. A missing path is not an
// error.
func Remove(path string) error {
	left.Lock()
	defer left.Unlock()
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	delete(left.paths, path)
	return os.RemoveAll(path)
}

// Sweep removes all that is left. Until resume is called, nothing new is made, so that a
// process that ends in between leaves nothing.
func Sweep() (resume func()) {
	left.Lock()
	for path := range left.paths {
		for range 3 { // other goroutines may still write there
			if os.RemoveAll(path) == nil {
				break
			}
		}
	}
	clear(left.paths)
	return left.Unlock
}
