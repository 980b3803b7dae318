package softhsm_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestCopied wants a copy of a directory to be no second name of its tokens, and the same
// directory by another path to be the same.
func TestCopied(t *testing.T) {
	t.Setenv("SOFTHSM2_CONF", "")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	first, copied, link := filepath.Join(dir, "first"), filepath.Join(dir, "copied"), filepath.Join(dir, "link")
	config, err := softhsm.Configure(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(copied, os.DirFS(first)); err != nil {
		t.Fatal(err)
	}
	_, err = softhsm.Configure(copied)
	if err == nil || !strings.Contains(err.Error(), filepath.Join(copied, "softhsm2.conf")+" is for the tokens in "+filepath.Join(first, "tokens")) {
		t.Errorf("a copy: %v", err)
	}
	if now := os.Getenv("SOFTHSM2_CONF"); now != config {
		t.Errorf("this process uses %s", now)
	}
	if err := os.Remove(filepath.Join(copied, "softhsm2.conf")); err != nil {
		t.Fatal(err)
	}
	if _, err := softhsm.Configure(copied); err != nil {
		t.Errorf("as advised: %v", err)
	}
	if err := os.Symlink(first, link); err != nil {
		t.Fatal(err)
	}
	if _, err := softhsm.Configure(link); err != nil {
		t.Errorf("a link: %v", err)
	}
}
