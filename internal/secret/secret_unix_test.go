//go:build unix

package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// descriptor is one of its own: reading puts another file there.
func descriptor(t *testing.T, f *os.File) int {
	defer f.Close()
	own, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(own) })
	return own
}

// TestDescriptorTwice opens a file after a secret was read from a descriptor, whose number it
// must not get: what reads the secret again would take the file for it, and close it.
func TestDescriptorTwice(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(w, "1234")
	w.Close()
	source := Source(fmt.Sprintf("fd:%d", descriptor(t, r)))
	b, err := source.Read("secret", 8)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for range 8 {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	if b, err := source.Read("secret", 8); !errors.Is(err, ErrEmpty) {
		t.Errorf("a second reading: %v, %v", b != nil, err)
	}
	for _, f := range files {
		if _, err := io.ReadAll(f); err != nil {
			t.Error(err)
		}
		f.Close()
	}
}

func TestReadDescriptor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(w, "1234")
	w.Close()
	b, err := Source(fmt.Sprintf("fd:%d", descriptor(t, r))).Read("secret", 8)
	if err != nil || string(b.Bytes()) != "1234" {
		t.Errorf("%v", err)
	}
	b.Close()
}
