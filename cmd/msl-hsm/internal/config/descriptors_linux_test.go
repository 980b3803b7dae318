package config

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// TestNoDescriptor reads a file in a process that can open no more files: another file is of no
// use then.
func TestNoDescriptor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("server: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := before
	none.Cur = 0
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none)
	err := Default().Read(path)
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	want := "configuration: open " + path + ": too many open files; raise the limit of open files (ulimit -n, LimitNOFILE of systemd)"
	if got := exit.OneLine(err); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
