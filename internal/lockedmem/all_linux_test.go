package lockedmem

import (
	"errors"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLockAll locks the memory of a process of its own, which continues to take memory and to
// give it back.
func TestLockAll(t *testing.T) {
	if os.Getenv("LOCK_ALL") == "" {
		child := exec.Command(os.Args[0], "-test.run=^TestLockAll$", "-test.v")
		child.Env = append(os.Environ(), "LOCK_ALL=1")
		out, err := child.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if strings.Contains(string(out), "SKIP") {
			t.Skipf("%s", out)
		}
		return
	}
	if err := LockAll(); errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b := make([]byte, 16<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		if got := strings.Join(flags(t, b[len(b)/2:]), " ") + " "; !strings.Contains(got, "lo ") {
			t.Errorf("new memory has the flags %s", got)
		}
		debug.FreeOSMemory()
	}
}
