package hsm

import (
	"errors"
	"testing"
	"time"
)

// TestRestartAfterClose has a recovery restart a module that the last store left meanwhile: it
// stays finalized.
func TestRestartAfterClose(t *testing.T) {
	if err := (&module{}).restart(time.Second); !errors.Is(err, errClosed) {
		t.Error(err)
	}
}
