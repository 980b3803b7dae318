//go:build unix

package statefile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
)

// lock locks the directory of a file until unlock is called or the process ends.
func lock(path string, patience time.Duration) (unlock func(), err error) {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return func() {}, nil // writing says why
	}
	unlock = func() { d.Close() }
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		switch err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err != unix.EWOULDBLOCK && err != unix.EINTR:
			return unlock, nil // locked, or on a file system without locks
		case time.Now().After(end):
			unlock()
			return nil, ErrLocked
		}
	}
}

func take(ctx context.Context, name string, waits func()) (end func(), err error) {
	for first := true; ; first = false {
		f, err := open(name)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK && err != unix.EINTR && hasName(f, name) {
			return func() { f.Close() }, nil // locked, or on a file system without locks
		}
		f.Close()
		if first {
			waits()
		}
		select {
		case <-ctx.Done():
			return nil, ErrLocked
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// open opens a lock file. One that this user may not open was left by another one, such as root, who
// made what is this user's now: a new one takes its place.
func open(name string) (*os.File, error) {
	f, err := atomicfile.Open(name, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrPermission) && os.Remove(name) == nil {
		return atomicfile.Open(name, os.O_RDWR|os.O_CREATE, 0o600)
	}
	return f, err
}

// hasName reports whether an open file has that name. One that was removed meanwhile locks nobody out.
func hasName(f *os.File, name string) bool {
	here, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(name)
	return err == nil && os.SameFile(here, named)
}
