package lockedmem

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCheck takes the right to lock memory away, on a thread that ends with it: Check says so,
// and a buffer works all the same.
func TestCheck(t *testing.T) {
	if err := Check(); err != nil {
		t.Skip(err)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 0, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_MEMLOCK, &before)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Error(err)
		}
		b := Copy([]byte("secret"))
		if string(b.Bytes()) != "secret" {
			t.Error("the buffer is not what was copied")
		}
		b.Close()
		done <- Check()
	}()
	if err := <-done; !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOMEM) {
		t.Errorf("without the right: %v", err)
	}
}
