package admin

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestNoDescriptor looks for a server from a process that can open no more files: that does
// not mean that none runs.
func TestNoDescriptor(t *testing.T) {
	running, _ := socketBeside(t)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := before
	none.Cur = 0
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none)
	r, err := Dial(running)
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	if r != nil || !errors.Is(err, syscall.EMFILE) || !strings.HasPrefix(err.Error(), "cannot tell whether a server has ") {
		t.Errorf("with a server: %v, %v", r, err)
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "none"), filepath.Join(running, "below"), filepath.Join(t.TempDir(), strings.Repeat("long", 100))} {
		if r, err := Dial(path); r != nil || err != nil {
			t.Errorf("without one at %.60s: %v, %v", path, r, err)
		}
	}
}
