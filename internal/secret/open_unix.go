//go:build unix

package secret

import (
	"os"

	"golang.org/x/sys/unix"
)

// takeOver returns a descriptor to be read instead of another, whose number then refers
// to /dev/null. If that number were free, the next opened file would get it, and a second
// reading would take that file's content for the secret, and close it.
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
