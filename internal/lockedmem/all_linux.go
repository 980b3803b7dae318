package lockedmem

import (
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LockAll keeps all current and future memory of this process out of swap: for a process
// whose heap holds keys as long as they are used. Without the right to lock any amount
// (RLIMIT_MEMLOCK or CAP_IPC_LOCK) it returns an error and locks nothing, since later
// allocations would otherwise fail.
func LockAll() error {
	if err := liftLimit(); err != nil && !mayLockAny() {
		return fmt.Errorf("lockedmem: setrlimit RLIMIT_MEMLOCK: %w", err)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lockedmem: mlockall: %w", err)
	}
	return nil
}

// liftLimit removes the limit, if there is one. A service may have no limit, yet be
// forbidden to call setrlimit(2).
func liftLimit() error {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &now); err == nil && now.Cur == unix.RLIM_INFINITY {
		return nil
	}
	return unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
}

// mayLockAny reports whether no limit applies to this process: it locks more address
// space than any limit, which is never used. Checking for CAP_IPC_LOCK is not enough,
// since that capability of a user namespace, as in a rootless container, does not lift
// the limit (user_namespaces(7)).
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
