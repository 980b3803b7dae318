//go:build unix

package boltkv

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// lock locks a file like bbolt, or returns [kv.ErrInUse].
func lock(f *os.File) error {
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return kv.ErrInUse
	}
	return nil
}
