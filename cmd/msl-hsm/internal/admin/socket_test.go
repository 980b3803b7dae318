package admin

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSocketPlace listens where something is already.
func TestSocketPlace(t *testing.T) {
	at := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(at, []byte("state"), 0o600); err != nil {
		t.Fatal(err)
	}
	Service{Socket: at}.Listen(slog.New(slog.DiscardHandler)).Close()
	if b, err := os.ReadFile(at); err != nil || string(b) != "state" {
		t.Fatalf("a file in that place: %q, %v", b, err)
	}
	os.Remove(at)
	var told strings.Builder
	Service{Socket: at + strings.Repeat("x", 108)}.Listen(slog.New(slog.NewTextHandler(&told, nil))).Close()
	if !strings.Contains(told.String(), "must not exceed 107 bytes: choose a shorter one") {
		t.Errorf("a long path: %s", told.String())
	}
}
