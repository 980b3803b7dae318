//go:build unix

package secret

import (
	"os"

	"golang.org/x/sys/unix"
)

// takeOver returns a descriptor that is read in place of another, whose number /dev/null gets. If
// that were free, the next file that is opened would have it, and a second reading would take
// what is in there for the secret, and close it.
func takeOver(fd int) (own int, err error) {
	if own, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		return 0, err
	}
	nothing, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Dup2(nothing, fd)
		unix.Close(nothing)
	}
	if err != nil {
		unix.Close(own)
	}
	return own, err
}
