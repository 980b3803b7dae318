package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/etcd"
)

// TestUndo keeps the keys of an entity that may be registered, although nobody knows.
func TestUndo(t *testing.T) {
	for _, err := range []error{state.ErrExists, etcd.ErrUncertain} {
		path := filepath.Join(t.TempDir(), "device.psk")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		got := undo(path, fmt.Errorf("add: %w", err))
		_, there := os.Stat(path)
		kept := err == etcd.ErrUncertain
		if !errors.Is(got, err) || errors.Is(there, fs.ErrNotExist) == kept || strings.Contains(got.Error(), path) != kept {
			t.Errorf("%v, and the file: %v", got, there)
		}
	}
}
