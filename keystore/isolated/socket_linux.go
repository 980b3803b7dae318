package isolated

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// leastRoom is what any pipe has room for (PIPE_BUF).
const leastRoom = 4096

// noSignal keeps a closed socket from raising SIGPIPE.
const noSignal = syscall.MSG_NOSIGNAL

func socketPair() (fds [2]int, err error) {
	return syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
}

func pipe() (fds [2]int, err error) {
	err = syscall.Pipe2(fds[:], syscall.O_CLOEXEC)
	return fds, err
}

// roomOf returns how many bytes an empty pipe has room for, up to what is useful:
// a user who has many pipes gets small ones (pipe(7)).
func roomOf(pipe int) int {
	size, err := unix.FcntlInt(uintptr(pipe), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return leastRoom
	}
	return min(max(size/2, leastRoom), buffer/2)
}

// bindToParent makes the kernel tell the child to end with the thread that started it, so also
// where the parent is killed (prctl(2), PR_SET_PDEATHSIG).
func bindToParent(c *exec.Cmd) {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Pdeathsig = orphaned
}
