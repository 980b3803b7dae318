package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// TestReadyPlanted plants links instead of temporary files.
func TestReadyPlanted(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "ready"), filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{".new", ".tmp", "~"} {
		if err := os.Symlink(victim, path+suffix); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeReady(path, "http://127.0.0.1:1/"); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{victim: "old", path: "http://127.0.0.1:1/\n"} {
		if text, err := os.ReadFile(file); string(text) != want {
			t.Errorf("%s holds %q, %v; want %q", file, text, err, want)
		}
	}
}
