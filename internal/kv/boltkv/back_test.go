package boltkv

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// TestCopiedOver copies an earlier file over the one that is open, as cp does: what was written
// since then does not count as never written.
func TestCopiedOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	d := openTest(t, path, layout())
	put := func(value string) error {
		return d.write(func(tx kv.Tx) error { return tx.Put("first", []byte("id"), []byte(value)) })
	}
	opened, errOpened := os.ReadFile(path)
	if err := errors.Join(errOpened, put("1")); err != nil {
		t.Fatal(err)
	}
	first, errFirst := os.ReadFile(path)
	if err := errors.Join(errFirst, put("2")); err != nil {
		t.Fatal(err)
	}
	newest, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range [][]byte{opened, first} {
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			read := d.View(t.Context(), func(r kv.Reader) error { _, err := r.Get("first", []byte("id")); return err })
			for _, err := range []error{read, put("3")} {
				if !errors.Is(err, kv.ErrDamaged) || !strings.Contains(err.Error(), "an earlier copy was written over it") {
					t.Error(err)
				}
			}
		}
	}
	if err := errors.Join(os.WriteFile(path, newest, 0o600), put("3")); err != nil {
		t.Errorf("the file that was put back: %v", err)
	}
}
