//go:build unix

package throwaway

import (
	"io/fs"
	"os"
	"syscall"
)

// own reports whether a file belongs to this user.
func own(f fs.FileInfo) bool {
	owner, ok := f.Sys().(*syscall.Stat_t)
	return ok && int(owner.Uid) == os.Geteuid()
}
