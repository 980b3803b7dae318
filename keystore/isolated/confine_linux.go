package isolated

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Confine takes from this process, the child, what the library of a device has no use for:
// to run programs, to look into other processes, to wait for connections, and what
// administers the system. Such calls fail with EPERM from then on (seccomp(2)). It cannot
// be undone. It also hides the process, as [Hide] does. A system that does not have it is an
// error.
func Confine() error {
	if err := Hide(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("isolated: prctl: %w", err)
	}
	if auditArch == 0 {
		return fmt.Errorf("isolated: seccomp: no rules for this processor")
	}
	rules := filter()
	program := unix.SockFprog{Len: uint16(len(rules)), Filter: unsafe.SliceData(rules)}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("isolated: seccomp: %w", errno)
	}
	return nil
}

// Hide keeps the memory of this process from its user's other processes, and out of core
// dumps (prctl(2), PR_SET_DUMPABLE). A parent that does it is safe from its child, which
// could read /proc/PID/mem otherwise.
func Hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("isolated: prctl: %w", err)
	}
	return nil
}

// refused are the system calls that a library has no use for.
func refused() []uint32 {
	return []uint32{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT,
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
		unix.SYS_LISTEN, sysAccept, unix.SYS_ACCEPT4,
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_UNSHARE, unix.SYS_SETNS,
		unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
		unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD,
		unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME,
		unix.SYS_ADD_KEY, unix.SYS_KEYCTL, unix.SYS_REQUEST_KEY,
	}
}

// The offsets in struct seccomp_data.
const (
	offsetNumber = 0
	offsetArch   = 4
)

// filter is the program of refused: it compares the number of a call with each. Calls of
// another architecture's numbers, which it could not tell apart, are refused.
func filter() []unix.SockFilter {
	statement := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	load, jump, give := uint16(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS), uint16(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K), uint16(unix.BPF_RET|unix.BPF_K)
	refuse := statement(give, unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM))
	rules := []unix.SockFilter{
		statement(load, offsetArch), {Code: jump, Jt: 1, K: auditArch}, refuse,
		statement(load, offsetNumber), {Code: uint16(unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K), Jf: 1, K: firstForeign}, refuse,
	}
	numbers := refused()
	slices.Sort(numbers)
	for _, number := range numbers {
		rules = append(rules, unix.SockFilter{Code: jump, Jf: 1, K: number}, refuse)
	}
	return append(rules, statement(give, unix.SECCOMP_RET_ALLOW))
}

// firstForeign is the first number of the x32 ABI of amd64, whose architecture is that of
// amd64. No other architecture has as many.
const firstForeign = 0x40000000
