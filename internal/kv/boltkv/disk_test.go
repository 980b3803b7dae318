package boltkv

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A failing disk does not give what is at an offset.
type failing struct {
	io.ReaderAt
	at int64
}

func (f failing) ReadAt(b []byte, at int64) (int, error) {
	if at <= f.at && f.at < at+int64(len(b)) {
		return 0, &os.PathError{Op: "read", Path: "file", Err: syscall.EIO}
	}
	return f.ReaderAt.ReadAt(b, at)
}

// TestDiskFails reads files of which the disk does not give a page: that is said, and not that
// they are damaged.
func TestDiskFails(t *testing.T) {
	b := sample(t, layout())
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sound, err := readPages(f, int64(len(b)), os.Getpagesize())
	if err != nil {
		t.Fatal(err)
	}
	for id := range uint64(len(b) / os.Getpagesize()) {
		if id >= 2 && !sound.inUse[id] {
			continue
		}
		_, err := readPages(failing{f, int64(id) * int64(os.Getpagesize())}, int64(len(b)), os.Getpagesize())
		wantDiskFails(t, err)
	}
}

func wantDiskFails(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, syscall.EIO) || errors.Is(err, kv.ErrDamaged) || !strings.Contains(err.Error(), "copy the file to another one, or restore a backup there") {
		t.Errorf("%v, want that the disk fails", err)
	}
}

// TestMappedDiskFails crashes on a file that cannot be read.
func TestMappedDiskFails(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("this file is one of Linux")
	}
	const unreadable = "/proc/self/mem" // nothing is mapped at address 0
	info, err := os.Stat(unreadable)
	if err != nil {
		t.Fatal(err)
	}
	d := &DB{path: unreadable, opened: info, layout: layout()}
	for range 2 {
		harmless := false
		wantDiskFails(t, d.once(&harmless, func() error { panic("a page is not there") }))
	}
}

// TestUncertain says that a change may have been made if the disk fails when readers see it already.
func TestUncertain(t *testing.T) {
	d := openTest(t, filepath.Join(t.TempDir(), "file"), layout())
	number := int64(0)
	err := d.update(func(tx *bbolt.Tx) error {
		number = int64(tx.ID())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int64]bool{number: true, number + 1: false} {
		err := d.committed(at, d.ofDisk(syscall.EIO))
		wantDiskFails(t, err)
		if errors.Is(err, kv.ErrUncertain) != want {
			t.Errorf("transaction %d after %d: %v", at, number, err)
		}
	}
	failed := errors.New("the function failed")
	if err := d.update(func(*bbolt.Tx) error { return failed }); err != failed {
		t.Error(err)
	}
}
