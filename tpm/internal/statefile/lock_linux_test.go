package statefile

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLeftByAnother takes a lock whose file another user made, such as root, from whom this one got
// the directory.
func TestLeftByAnother(t *testing.T) {
	dir, err := os.MkdirTemp("", "lock")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "file.lock")
	if err := os.WriteFile(name, nil, 0); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // who may open any file: this thread becomes somebody else
		const nobody = 65534
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if _, err := unix.SetfsuidRetUid(nobody); err != nil {
			t.Fatal(err)
		}
		defer unix.SetfsuidRetUid(0)
	}
	end, err := Take(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	end()
}

// TestRemovedMeanwhile removes the file of a lock for which one waits: it gets the lock of the file
// that is there then.
func TestRemovedMeanwhile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file.lock")
	take := func(waits func()) (end func()) {
		end, err := Take(t.Context(), name, waits)
		if err != nil {
			t.Error(err)
		}
		return end
	}
	first := take(nil)
	waits, taken := make(chan bool), make(chan func())
	go func() { taken <- take(func() { close(waits) }) }()
	<-waits
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	second := take(nil)
	first()
	select {
	case <-taken:
		t.Error("two have the lock")
	case <-time.After(50 * time.Millisecond):
		second()
		(<-taken)()
	}
}
