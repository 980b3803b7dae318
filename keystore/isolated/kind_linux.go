package isolated

import (
	"math"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hereKind returns the kind of the processor that this thread runs on.
func hereKind() kind {
	var number uint32
	_, _, errno := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&number)), 0, 0)
	if errno != 0 || number >= math.MaxUint16 {
		return blocking
	}
	return kind(number)
}

// settle keeps this goroutine on the processor of its lane, with a thread that ends with it.
// Where that is refused, the lane only takes longer.
func (k kind) settle() {
	if k < 0 {
		return
	}
	runtime.LockOSThread()
	var only unix.CPUSet
	only.Set(int(k))
	_ = unix.SchedSetaffinity(0, &only)
}
