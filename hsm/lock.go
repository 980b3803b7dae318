package hsm

import (
	"fmt"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A lock is held through calls into the module, which may not return: nobody
// waits for it longer than the caller says.
type lock struct{ mu sync.Mutex }

func (l *lock) take(wait time.Duration) error {
	for deadline := time.Now().Add(wait); !l.mu.TryLock(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("hsm: a key is in use by a call that has not returned for %v: %w", wait, keystore.ErrBusy)
		}
	}
	return nil
}

func (l *lock) free() { l.mu.Unlock() }
