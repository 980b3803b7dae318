//go:build unix

package statefile

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
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
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for first := true; ; first = false {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return func() { f.Close() }, nil // locked, or on a file system without locks
		}
		if first {
			waits()
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ErrLocked
		case <-time.After(10 * time.Millisecond):
		}
	}
}
