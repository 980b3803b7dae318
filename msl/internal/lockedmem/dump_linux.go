package lockedmem

import "golang.org/x/sys/unix"

func keepFromDumps(page []byte) { _ = unix.Madvise(page, unix.MADV_DONTDUMP) }
