package isolated

import (
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hold waits until fd can be read, as if this goroutine computed meanwhile: it keeps its turn,
// which costs less than to give it away and get it back. It returns early when the runtime wants
// that turn, for a collection of garbage or because it was kept for 10 ms: the signal that says
// so ends ppoll(2), which is never begun again as a read would be (signal(7)).
func hold(fd int) (early bool) {
	one := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&one)), 1, 0, 0, 0, 0)
	return errno != 0
}

// canHold reports whether the runtime can ask for a turn that is held.
func canHold() bool { return !strings.Contains(os.Getenv("GODEBUG"), "asyncpreemptoff=1") }

// readHeld and writeHeld are for what does not block: they keep the turn, too.
func readHeld(fd int, b []byte) (int, error) { return rawCall(unix.SYS_READ, fd, b) }

func writeHeld(fd int, b []byte) (int, error) { return rawCall(unix.SYS_WRITE, fd, b) }

func rawCall(number uintptr, fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(number, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, syscall.Errno(errno)
	}
	return int(n), nil
}
