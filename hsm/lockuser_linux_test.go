package hsm

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLockOfOthers makes a lock file in a directory to which several users may write: they all use it.
func TestLockOfOthers(t *testing.T) {
	dir, err := os.MkdirTemp("", "lock")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	first, err := openLock(dir, "keys.lock")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if os.Getuid() == 0 { // this thread becomes somebody else
		const nobody = 65534
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if _, err := unix.SetfsuidRetUid(nobody); err != nil {
			t.Fatal(err)
		}
		defer unix.SetfsuidRetUid(0)
	}
	second, err := openLock(dir, "keys.lock")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if one, other := stat(t, first), stat(t, second); !os.SameFile(one, other) || one.Mode().Perm() != 0o666 {
		t.Errorf("%s (%v) and %s are two locks", first.Name(), one.Mode(), second.Name())
	}
}

func stat(t *testing.T, f *os.File) os.FileInfo {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info
}
