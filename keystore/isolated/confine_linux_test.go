//go:build cgo && !nopkcs11

package isolated_test

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/keystore/isolated"
)

// queueCalls makes a ring of system calls, to which no filter applies (io_uring(7)).
func queueCalls() error {
	var params [120]byte
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

// beConfined tries what a confined process must not be able to do, and tells for each
// whether that was refused with EPERM.
func beConfined() {
	parent := os.Getppid()
	tries := map[string]func() error{
		"run a program":          func() error { return exec.Command("/proc/self/exe").Run() },
		"trace another process":  func() error { return syscall.PtraceAttach(parent) },
		"read another's memory":  func() error { _, err := unix.ProcessVMReadv(parent, nil, nil, 0); return err },
		"wait for a connection":  func() error { _, err := net.Listen("tcp", "127.0.0.1:0"); return err },
		"queue system calls":     queueCalls,
		"mount a file system":    func() error { return unix.Mount("none", "/nowhere", "tmpfs", 0, "") },
		"make another namespace": func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
	}
	if err := isolated.Confine(); err != nil {
		os.Exit(3)
	}
	refused := map[string]bool{}
	for name, try := range tries {
		refused[name] = errors.Is(try(), syscall.EPERM)
	}
	_, err := os.ReadFile("/proc/self/status")
	refused["read a file"] = err != nil
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	refused["be dumped"] = err == nil && dumpable == 0
	json.NewEncoder(os.Stdout).Encode(refused)
	os.Exit(0)
}

func TestConfine(t *testing.T) {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), asConfined+"=1")
	out, err := c.Output()
	if c.ProcessState.ExitCode() == 3 {
		t.Skip("this system has no seccomp")
	}
	if err != nil {
		t.Fatal(err)
	}
	var refused map[string]bool
	if err := json.Unmarshal(out, &refused); err != nil || len(refused) != 9 {
		t.Fatalf("%s: %v", out, err)
	}
	for name, is := range refused {
		if is != (name != "read a file") {
			t.Errorf("%s: refused is %t", name, is)
		}
	}
}
