//go:build unix

package secret

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// descriptor is one of its own: reading closes it, and the file would close that
// number again.
func descriptor(t *testing.T, f *os.File) int {
	defer f.Close()
	own, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return own
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
