// Package throwaway makes files and directories that are gone when the program ends, also when a
// signal ends it: [Sweep] removes what is left of all, for whoever is told of the signal.
// It takes no signal up itself, so that a program which embeds a library decides that.
package throwaway

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// left are the paths of what was made and is not removed yet.
var left = struct {
	sync.Mutex
	paths map[string]bool
}{paths: map[string]bool{}}

// Dir makes a new directory in the one named, or in that for temporary files if the name is
// empty, as [os.MkdirTemp] does. The caller calls [Remove].
func Dir(in, pattern string) (path string, err error) {
	left.Lock()
	defer left.Unlock()
	if path, err = os.MkdirTemp(in, pattern); err != nil {
		return "", named(in, err)
	}
	note(path)
	return path, nil
}

// File makes a new file as [os.CreateTemp] does. The caller closes it, and calls [Remove], also
// where it has given it another name.
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
		return fmt.Errorf("the directory for temporary files, which TMPDIR names: %w", err)
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

// Remove removes what was made at a path, with all that is in it. It is no error if it is gone.
func Remove(path string) error {
	left.Lock()
	defer left.Unlock()
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	delete(left.paths, path)
	return os.RemoveAll(path)
}

// Sweep removes all that is left. What is made until resume is called waits for that, so that a
// process which ends meanwhile leaves nothing.
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
