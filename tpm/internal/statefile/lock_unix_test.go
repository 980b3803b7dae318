//go:build unix

package statefile

import (
	"path/filepath"
	"sync"
	"testing"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	unlock, err := lock(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(path, 0); err != ErrLocked {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	if unlock, err = lock(filepath.Join(filepath.Dir(path), "another"), 0); err != nil {
		t.Fatal(err)
	}
	unlock()
	if unlock, err = lock(filepath.Join(path, "in no directory"), 0); err != nil {
		t.Fatal(err)
	}
	unlock()
}

// TestChange has changes that must not overlap.
func TestChange(t *testing.T) {
	path, inside := filepath.Join(t.TempDir(), "file"), make(chan struct{}, 1)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			err := Change(path, func() error {
				select {
				case inside <- struct{}{}:
					<-inside
				default:
					t.Error("two at a time")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
