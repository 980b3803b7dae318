package cli

import (
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHidden checks that no command can be read by its user's other processes, or leaves a
// core dump (prctl(2), PR_SET_DUMPABLE).
func TestHidden(t *testing.T) {
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(before), 0, 0, 0)
	runCheaply([]string{"version"}, nil, io.Discard, io.Discard)
	if now, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || now != 0 {
		t.Errorf("PR_GET_DUMPABLE is %d (%v)", now, err)
	}
}
