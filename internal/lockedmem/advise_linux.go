package lockedmem

import "golang.org/x/sys/unix"

// protect keeps pages out of core dumps, and out of a child that a library in this
// process forks: the child sees zeros (madvise(2)). Like the lock, it is best effort.
func protect(page []byte) {
	_ = unix.Madvise(page, unix.MADV_DONTDUMP)
	_ = unix.Madvise(page, unix.MADV_WIPEONFORK) // since Linux 4.14
}
