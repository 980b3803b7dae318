package lockedmem

import (
	"bytes"
	"crypto/rand"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestRegisters has a signal save the registers of a thread that just handled a secret, and looks
// for the secret where it did.
func TestRegisters(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for name, c := range map[string]struct {
		handle func(secret []byte)
		stays  bool
	}{
		"Copy":            {func(s []byte) { Copy(s).Close() }, false},
		"Move":            {func(s []byte) { Move(bytes.Clone(s)) }, false},
		"Close":           {func(s []byte) { b := New(len(s)); copy(b.Bytes(), s); b.Close() }, false},
		"ClearRegisters":  {func(s []byte) { copied(s); ClearRegisters() }, false},
		"nothing is done": {copied, true},
	} {
		seen := false
		for _, size := range []int{16, 32, 48, 100, 180, 256, 1000, 5000} {
			secret := New(size)
			rand.Read(secret.Bytes())
			c.handle(secret.Bytes())
			unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGURG) // which Go ignores, but takes
			frame := signalStack(t)
			for at := 0; at+8 <= size; at++ {
				seen = seen || bytes.Contains(frame, secret.Bytes()[at:at+8])
			}
			secret.Close()
		}
		if seen != c.stays {
			t.Errorf("%s: the secret was in memory: %t", name, seen)
		}
	}
}

func copied(secret []byte) {
	to := make([]byte, len(secret))
	copy(to, secret)
	clear(to)
}

// signalStack returns the memory in which this thread handles signals (sigaltstack(2)).
func signalStack(t *testing.T) []byte {
	t.Helper()
	var at [3]uintptr // stack_t: address, flags, size
	if _, _, errno := unix.RawSyscall(unix.SYS_SIGALTSTACK, 0, uintptr(unsafe.Pointer(&at)), 0); errno != 0 {
		t.Fatal(errno)
	}
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Skip(err)
	}
	defer memory.Close()
	stack := make([]byte, at[2])
	if _, err := memory.ReadAt(stack, int64(at[0])); err != nil {
		t.Skip(err)
	}
	return stack
}
