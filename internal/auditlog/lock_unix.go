//go:build unix

package auditlog

import (
	"os"

	"golang.org/x/sys/unix"
)

// lock keeps other processes from writing a file.
func lock(f *os.File) error {
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return ErrInUse
	}
	return nil
}
