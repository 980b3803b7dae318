//go:build unix

package lockedmem

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// allocate maps whole pages: locks apply to pages, and unlocking one buffer would
// unlock another on the same page.
func allocate(n int) ([]byte, bool) {
	size := os.Getpagesize()
	size *= max(1, (n+size-1)/size)
	page, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]byte, n), false
	}
	// Best effort: a process may not be allowed any locked memory.
	_ = unix.Mlock(page)
	protect(page)
	return page, true
}

// Check returns why buffers cannot be kept out of swap space here, or nil. Their other
// protection does not depend on it.
func Check() error {
	size := os.Getpagesize()
	page, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("lockedmem: mmap: %w", err)
	}
	defer free(page)
	if err := unix.Mlock(page); err != nil {
		return fmt.Errorf("lockedmem: mlock: %w", err)
	}
	return nil
}

func free(page []byte) { _ = unix.Munmap(page) }
