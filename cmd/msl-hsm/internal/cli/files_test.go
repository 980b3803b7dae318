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

// TestReadyAgain checks that a process accepts the ready file that an earlier one wrote, wherever
// that one listened, and no other text.
func TestReadyAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ready")
	for _, urls := range []string{
		"http://127.0.0.1:8080/", "https://[::1]:8443/\nstream tls://[::1]:9000/\nadmin http://127.0.0.1:9090/",
		"unix:/run/agent.sock", "unix:agent.sock", "unix:/home/ada/my devices/agent.sock",
	} {
		if err := writeReady(path, urls); err != nil {
			t.Fatal(err)
		}
		if err := checkReady(path); err != nil {
			t.Errorf("%q: %v", urls, err)
		}
	}
	for _, text := range []string{"keystore: {uri: soft:FILE}\n", "http://127.0.0.1:8080/ is mine\n", "http://127.0.0.1:8080/"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := forgetReady(path); err == nil {
			t.Errorf("%q was removed", text)
		}
	}
}
