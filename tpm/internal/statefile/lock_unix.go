//go:build unix

package statefile

import (
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
