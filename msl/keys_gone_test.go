package msl_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestRememberedKeysGone has remembered keys that do not open any more, since their sealing
// keys were destroyed and the device was opened again: the next message opens them anew, and
// its sender is told what lets it go on.
func TestRememberedKeysGone(t *testing.T) {
	for _, failure := range []error{keystore.ErrForeign, keystore.ErrLost, keystore.ErrNotFound} {
		t.Run(failure.Error(), func(t *testing.T) {
			b := newFaultBench(t)
			faultScenarios["returning device"](b)
			b.ran, b.refused = 0, nil
			var once sync.Once
			b.store.watch(func(_ int, op string) (err error) {
				switch op {
				case "Sum":
					once.Do(func() { err = fmt.Errorf("gone: %w: %w", failure, keystore.ErrUnavailable) })
				case "Unseal msl master token":
					err = keystore.ErrForeign
				}
				return err
			})
			for range 2 {
				b.send() // is told to come again, and does so, or does so by itself
			}
			if len(b.refused) != 2 || b.refused[0].code != msl.ErrInternalException || b.refused[1].code != msl.ErrMasterTokenKeyCreationError {
				t.Errorf("refused %+v", b.refused)
			}
			if b.ran != 1 {
				t.Errorf("ran %d", b.ran)
			}
		})
	}
}
