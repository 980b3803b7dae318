package isolated

import (
	"os/exec"
	"syscall"
)

// noSignal keeps a closed socket from raising SIGPIPE.
const noSignal = syscall.MSG_NOSIGNAL

func socketPair() (fds [2]int, err error) {
	return syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
}

// bindToParent makes the kernel end the child with the thread that started it, so also
// where the parent is killed (prctl(2), PR_SET_PDEATHSIG).
func bindToParent(c *exec.Cmd) {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
