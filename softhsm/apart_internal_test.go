package softhsm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNotApart has a place beside the tokens where nobody may make anything.
func TestNotApart(t *testing.T) {
	t.Setenv("SOFTHSM2_CONF", "")
	config := filepath.Join(t.TempDir(), configName)
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done, err := makeApart("", config, "/sys/tokens", "label", nil, nil)
	if done || err != nil || os.Getenv("SOFTHSM2_CONF") != config {
		t.Errorf("done %t, %v, now with %s", done, err, os.Getenv("SOFTHSM2_CONF"))
	}
}

// TestSameSettings makes tokens with the settings of the directory that they are for.
func TestSameSettings(t *testing.T) {
	t.Setenv("SOFTHSM2_CONF", "")
	dir := t.TempDir()
	config, apart := filepath.Join(dir, configName), filepath.Join(dir, "apart")
	settings := "objectstore.backend = db\n directories.tokendir=" + filepath.Join(dir, "tokens") + "\nobjectstore.umask = 0007"
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := configureApart(config, apart); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(os.Getenv("SOFTHSM2_CONF"))
	want := "directories.tokendir = " + filepath.Join(apart, "tokens") + "\nobjectstore.backend = db\nobjectstore.umask = 0007"
	if err != nil || strings.TrimSpace(string(got)) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}
