package hsm

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestInitTokenWaits makes a token while another process does: it begins after that one, since a
// module lists its tokens when it is initialized.
func TestInitTokenWaits(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	unlock, err := lockTokens()
	if err != nil {
		t.Fatal(err)
	}
	var done atomic.Bool
	ended := make(chan error, 1)
	go func() {
		err := InitToken("/nowhere/module.so", "label", []byte("1234"), []byte("1234"))
		done.Store(true)
		ended <- err
	}()
	time.Sleep(20 * time.Millisecond)
	if done.Load() {
		t.Error("it did not wait")
	}
	unlock()
	if err := <-ended; !errors.Is(err, keystore.ErrUnavailable) {
		t.Error(err)
	}
}
