package tpm

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestOneOfManyChanges changes a state file several times at once, as processes do that opened it
// in the same state: no key is lost, because only one change is made.
func TestOneOfManyChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	first := &state{path: path, file: stateFile{StorageKey: storageKey{Handle: defaultSRK, Public: []byte{1}}}}
	if err := first.create(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	begin, made := make(chan struct{}), make(chan error, 8)
	for i := range cap(made) {
		st, err := readState(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			<-begin
			made <- st.change(func(f *stateFile) { f.StorageKey.Handle += handle(i + 1) })
		})
	}
	close(begin)
	all.Wait()
	succeeded := 0
	for range cap(made) {
		if err := <-made; err == nil {
			succeeded++
		} else if !errors.Is(err, keystore.ErrBusy) {
			t.Error(err)
		}
	}
	if succeeded != 1 {
		t.Errorf("%d changes of the same file succeeded", succeeded)
	}
}
