//go:build unix

package atomicfile

import (
	"io/fs"
	"os"
	"syscall"
)

// Trusted checks the owner of a link: a link made by another user would choose which of
// this user's files is replaced.
func Trusted(link fs.FileInfo) bool {
	owner, ok := link.Sys().(*syscall.Stat_t)
	return ok && (owner.Uid == 0 || int(owner.Uid) == os.Geteuid())
}

// noFollow makes opening a link an error (POSIX, open).
const noFollow = syscall.O_NOFOLLOW
