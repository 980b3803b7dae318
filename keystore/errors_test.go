package keystore_test

import (
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestNoVersion names a version only where one was meant.
func TestNoVersion(t *testing.T) {
	for version, want := range map[uint32]string{0: `key "a": keystore: no such key`, 2: `key "a" version 2: keystore: no such key`} {
		err := keystore.NoVersion("a", version)
		if err.Error() != want || !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("version %d: %v", version, err)
		}
	}
}
