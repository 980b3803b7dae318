package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

func TestListenLocally(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listenLocally("--listen", "unix:"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	if _, err := listenLocally("--listen", "unix:"+path, nil); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a socket in use: %v", err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{
		"unix:" + path: "not a socket", "0.0.0.0:0": "other machines", "[::]:0": "other machines", ":0": "other machines", "192.0.2.1:80": "other machines",
		"example.com:80": "other machines", "127.0.0.1": "want unix", "unix:/nowhere/s": "no such file",
		"unix:" + path + strings.Repeat("x", 108): "107 bytes",
	} {
		if l, err := listenLocally("--listen", at, nil); err == nil || !strings.Contains(exit.OneLine(err), want) {
			t.Errorf("%s: %v, %v", at, l, err)
		}
	}
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	if _, err := listenLocally("--listen", "", nil); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("nowhere: %v", err)
	}
	t.Setenv("XDG_RUNTIME_DIR", filepath.Dir(path))
	if l, err = listenLocally("--listen", "", nil); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if at := urlOf(l); at != "unix:"+filepath.Join(filepath.Dir(path), "msl-hsm-agent.sock") {
		t.Errorf("listens at %s", at)
	}
}

// TestListenSetting has errors name the setting that the address is from.
func TestListenSetting(t *testing.T) {
	for _, at := range []string{"192.0.2.1:80", "nonsense", "unix:", "127.0.0.1:99999"} {
		if _, err := listenLocally("server.push.from", at, nil); err == nil || !strings.Contains(err.Error(), "server.push.from") || strings.Contains(err.Error(), "--listen") {
			t.Errorf("%s: %v", at, err)
		}
	}
}
