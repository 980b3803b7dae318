package admin

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
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

// TestSocketUnusable asks for a server whose socket would have too long a path: that says nothing
// about whether a server runs.
func TestSocketUnusable(t *testing.T) {
	file := filepath.Join(t.TempDir(), strings.Repeat("x", 108))
	if err := os.WriteFile(file, []byte("state"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := &config.Config{}
	long.Server.State.Override(file)
	shared := &config.Config{}
	shared.Server.State.Etcd, shared.Server.Admin.Socket = []string{"http://127.0.0.1:1"}, file
	for _, c := range []*config.Config{long, shared} {
		_, err := DialServer(c, "")
		if err == nil || exit.Code(err) != exit.Failure || !strings.Contains(exit.OneLine(err), "must not exceed 107 bytes: choose a shorter one") {
			t.Error(err)
		}
	}
}
