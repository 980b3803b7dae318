//go:build unix

package boltkv

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// lock locks a file like bbolt, or returns [kv.ErrInUse].
func lock(f *os.File) error { return flock(f, unix.LOCK_EX) }

// InUse reports whether a process has a file open, without keeping others from opening it.
func InUse(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = flock(f, unix.LOCK_SH)
	if errors.Is(err, kv.ErrInUse) {
		return true, nil
	}
	return false, err
}

func flock(f *os.File, how int) error {
	switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
	case nil:
		return nil
	case unix.EWOULDBLOCK:
		return kv.ErrInUse
	default:
		return os.NewSyscallError("flock", err)
	}
}
