//go:build unix

package bolt

import (
	"os"

	"golang.org/x/sys/unix"
)

// lock locks a file as bbolt does, or returns [ErrInUse].
func lock(f *os.File) error {
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return ErrInUse
	}
	return nil
}
