//go:build unix

package plainfile

import "golang.org/x/sys/unix"

// nonBlocking keeps a pipe without a writer from blocking the process.
const nonBlocking = unix.O_NONBLOCK
