//go:build unix

package filewatch

import (
	"io/fs"
	"syscall"
)

// inode returns a file's identity independent of its name: a file that replaced another
// has a different number, though its size and time may be the same.
func inode(info fs.FileInfo) (device, file uint64) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Dev), uint64(s.Ino)
	}
	return 0, 0
}
