//go:build !unix

package atomicfile

import "io/fs"

// Trusted accepts every link: Windows lets only privileged users make links.
func Trusted(fs.FileInfo) bool { return true }

// noFollow is nothing where such a link cannot be told.
const noFollow = 0
