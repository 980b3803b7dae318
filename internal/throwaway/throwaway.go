// Package throwaway makes files and directories that are removed when the program ends,
// even by a signal: [Sweep] removes all that are left, and is called by the code that
// handles the signal. The package itself handles no signals, so that a program that
// embeds a library decides that. After a process was killed (SIGKILL) or lost power, the remains
// are removed by the same user's next process that makes something with the same prefix in
// that directory, after an hour.
package throwaway

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// left are the paths of what was made and not yet removed.
var left = struct {
	sync.Mutex
	paths map[string]bool
}{paths: map[string]bool{}}

// Dir makes a new directory of mode 0700 in the named one, or in the directory for temporary
// files if the name is empty. Its name begins with the prefix. The caller must call [Remove].
func Dir(in, prefix string) (path string, err error) {
	return create(in, prefix, func(path string) error { return os.Mkdir(path, 0o700) })
}

// File makes a new file of mode 0600, in the way of Dir. The caller must close it, and call
// [Remove], even after renaming it.
func File(in, prefix string) (f *os.File, err error) {
	_, err = create(in, prefix, func(path string) (err error) {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	return f, err
}

// create makes something under a name that cannot be guessed, and notes it.
func create(in, prefix string, do func(path string) error) (path string, err error) {
	left.Lock()
	defer left.Unlock()
	at := cmp.Or(in, os.TempDir())
	removeAbandoned(at, prefix, in == "")
	path = filepath.Join(at, prefix+rand.Text())
	if err := do(path); err != nil {
		return "", named(in, err)
	}
	note(path)
	return path, nil
}

const (
	randomText = 26        // base32 letters and digits after the prefix
	abandoned  = time.Hour // age at which nothing is still in use
)

// removeAbandoned removes what processes of this user that were killed left under a prefix. A
// failure does not matter, and the next one tries again. Among temporary files are also those of
// earlier versions, whose names ended in a number; elsewhere somebody may have numbered their own.
func removeAbandoned(in, prefix string, temporary bool) {
	all, _ := os.ReadDir(in)
	for _, e := range all {
		random, ok := strings.CutPrefix(e.Name(), prefix)
		if made := isRandom(random) || temporary && random != "" && strings.Trim(random, "0123456789") == ""; !ok || !made {
			continue
		}
		path := filepath.Join(in, e.Name())
		if info, err := e.Info(); err == nil && own(info) && time.Since(changed(path, info)) > abandoned {
			os.RemoveAll(path)
		}
	}
}

// isRandom reports whether a text may be one that create chose.
func isRandom(text string) bool {
	return len(text) == randomText && strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// changed returns when a file, or anything in a directory, last changed.
func changed(path string, info os.FileInfo) time.Time {
	last := info.ModTime()
	within, _ := os.ReadDir(path) // none in a file
	for _, e := range within {
		if info, err := e.Info(); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
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
