//go:build unix

package secret

import "golang.org/x/sys/unix"

// nonBlocking keeps a pipe that nobody writes to from holding the process up.
const nonBlocking = unix.O_NONBLOCK
