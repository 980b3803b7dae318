package boltkv

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// TestGone lets the file vanish, or change, while it is open: nothing is reported as written that
// is lost with the process, and nothing waits for ever.
func TestGone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(path string) error
		says   string
		is     error
	}{
		"removed":     {os.Remove, "was removed or replaced", nil},
		"moved":       {func(path string) error { return os.Rename(path, path+".old") }, "was removed or replaced", nil},
		"replaced":    {func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) }, "was removed or replaced", nil},
		"emptied":     {func(path string) error { return os.Truncate(path, 0) }, "became shorter", kv.ErrDamaged},
		"cut":         {func(path string) error { return os.Truncate(path, 8192) }, "became shorter", kv.ErrDamaged},
		"overwritten": {func(path string) error { return os.WriteFile(path, make([]byte, 1<<16), 0o600) }, "", kv.ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "file")
			d := openTest(t, path, layout())
			if err := d.write(func(tx kv.Tx) error { return tx.Put("first", []byte("a"), []byte("b")) }); err != nil {
				t.Fatal(err)
			}
			if err := c.change(path); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				_, errSize := d.Size()
				for what, err := range map[string]error{
					"write": d.write(func(tx kv.Tx) error { return tx.Put("first", []byte("c"), []byte("d")) }),
					"read":  d.View(t.Context(), func(r kv.Reader) error { _, err := r.Get("first", []byte("a")); return err }),
					"size":  errSize,
				} {
					if err == nil || !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is) {
						t.Errorf("%s: %v", what, err)
					}
				}
			}
		})
	}
}

// TestGrows has a file grow while others look at it: none of them takes that for a file that was
// cut.
func TestGrows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	d := openTest(t, path, layout())
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	grown := make(chan struct{})
	var looking sync.WaitGroup
	for range 4 {
		looking.Go(func() {
			for done := false; !done; {
				select {
				case <-grown:
					done = true
				default:
				}
				if err := d.sound(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range int64(2000) {
		if err := os.Truncate(path, info.Size()+n); err != nil {
			t.Error(err)
		}
	}
	close(grown)
	looking.Wait()
}
