package hsm

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestTokensInTurn makes a token, and changes a PIN, while another process does: it begins after that
// one, since a module reads its tokens when it is initialized.
func TestTokensInTurn(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	const module = "/nowhere/module.so"
	pin := []byte("1234")
	for name, do := range map[string]func() error{
		"InitToken": func() error { return InitToken(module, "label", pin, pin) },
		"ChangePIN": func() error { return ChangePIN(&URI{ModulePath: module}, User, pin, pin) },
	} {
		unlock, err := lockTokens()
		if err != nil {
			t.Fatal(err)
		}
		var done atomic.Bool
		ended := make(chan error, 1)
		go func() {
			err := do()
			done.Store(true)
			ended <- err
		}()
		time.Sleep(20 * time.Millisecond)
		if done.Load() {
			t.Errorf("%s did not wait", name)
		}
		unlock()
		if err := <-ended; !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
