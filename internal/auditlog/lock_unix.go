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

// removed reports whether a file has no name any more.
func removed(f *os.File) bool {
	var info unix.Stat_t
	return unix.Fstat(int(f.Fd()), &info) == nil && info.Nlink == 0
}
