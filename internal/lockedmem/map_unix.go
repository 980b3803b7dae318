//go:build unix

package lockedmem

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocate maps whole pages: a lock is on pages, and would end with that of a
// neighbour.
func allocate(n int) ([]byte, bool) {
	size := os.Getpagesize()
	size *= max(1, (n+size-1)/size)
	page, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]byte, n), false
	}
	// Best effort: a process may have no allowance for locked memory.
	_ = unix.Mlock(page)
	protect(page)
	return page, true
}

func free(page []byte) { _ = unix.Munmap(page) }
