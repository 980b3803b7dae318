//go:build cgo && !nopkcs11

package keys

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/hsm"
)

// TestUnreadableToken advises to make a token only where there is none: one that SoftHSM cannot
// read is not to be replaced by the way.
func TestUnreadableToken(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b") // which is not a pattern
	k := &config.Keystore{SoftHSM: dir}
	none := &hsm.NoTokenError{URI: "pkcs11:token=a"}
	if err := NoToken(k, none); !strings.Contains(err.Error(), "token init") {
		t.Errorf("without a token: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "tokens", "c2d9a2a0-1f2e-4b7a-8a1d-0f3f5b9f7c11"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := NoToken(k, none); strings.Contains(err.Error(), "token init") || !strings.Contains(err.Error(), "cannot read a token") {
		t.Errorf("with one that is not read: %v", err)
	}
}
