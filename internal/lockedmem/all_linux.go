package lockedmem

import (
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LockAll keeps all memory of this process out of the swap file, what it has and what it
// will get: for a process whose heap holds keys for as long as they are used. Without the
// right to lock any amount (RLIMIT_MEMLOCK or CAP_IPC_LOCK) it is an error and nothing is
// locked, since later allocations would fail then.
func LockAll() error {
	if err := liftLimit(); err != nil && !mayLockAny() {
		return fmt.Errorf("lockedmem: setrlimit RLIMIT_MEMLOCK: %w", err)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lockedmem: mlockall: %w", err)
	}
	return nil
}

// liftLimit takes the limit away, where there is one. A service may be forbidden to call
// setrlimit(2), and have none.
func liftLimit() error {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &now); err == nil && now.Cur == unix.RLIM_INFINITY {
		return nil
	}
	return unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
}

// mayLockAny reports whether no limit applies to this process: it locks room for more than that,
// which is never used. To ask for CAP_IPC_LOCK would not do, since that of a user namespace, as
// in a container without root, does not lift the limit (user_namespaces(7)).
func mayLockAny() bool {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &now); err != nil || now.Cur >= math.MaxInt {
		return false
	}
	room, err := unix.Mmap(-1, 0, int(now.Cur)+1, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return false
	}
	defer unix.Munmap(room)
	_, _, errno := unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(unsafe.SliceData(room))), uintptr(len(room)), unix.MLOCK_ONFAULT)
	return errno == 0
}
