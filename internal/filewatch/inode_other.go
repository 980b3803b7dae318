//go:build !unix

package filewatch

import "io/fs"

func inode(fs.FileInfo) (device, file uint64) { return 0, 0 }
