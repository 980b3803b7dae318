//go:build !linux

package isolated

import (
	"os/exec"
	"syscall"
)

const noSignal = 0 // package runtime takes care of SIGPIPE

func socketPair() (fds [2]int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if fds, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0); err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	return fds, err
}

func pipe() (fds [2]int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err = syscall.Pipe(fds[:]); err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	return fds, err
}

// roomOf returns what any pipe has room for (PIPE_BUF of POSIX).
func roomOf(int) int { return 512 }

// bindToParent does nothing: the child ends when its control socket is closed.
func bindToParent(*exec.Cmd) {}
