package softhsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestMakeWhole ends the making of a token after each of its steps, the first time beside the rest of
// a process that was killed: no part of a token is left, and the next attempt makes it.
func TestMakeWhole(t *testing.T) {
	other := softhsm.Temp(t)
	m := hsmtest.New(t, other.Module)
	t.Setenv("SOFTHSM2_MODULE", m.Path)
	t.Setenv("SOFTHSM2_CONF", "")
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	if err := os.MkdirAll(filepath.Join(dir, ".new-token", "tokens", "part"), 0o700); err != nil {
		t.Fatal(err)
	}
	attempt := func() error { return softhsm.Make(dir, "whole", []byte("1234"), []byte("12345678")) }
	for _, step := range []string{"C_InitToken", "C_Login", "C_InitPIN"} {
		m.Inject(hsmtest.Fault{Function: step, Code: pkcs11.CKR_DEVICE_ERROR, After: true})
		if err := attempt(); err == nil {
			t.Errorf("%s failed without an error", step)
		}
		if left, err := os.ReadDir(tokens); err != nil || len(left) != 0 {
			t.Errorf("%s failed: left %v, %v", step, left, err)
		}
	}
	m.Clear()
	if err := attempt(); err != nil {
		t.Fatal(err)
	}
	if err := attempt(); !errors.Is(err, keystore.ErrExists) {
		t.Errorf("a second token of the label: %v", err)
	}
	if made, err := os.ReadDir(tokens); err != nil || len(made) != 1 {
		t.Errorf("made %v, %v", made, err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".new-token")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left what it was made in: %v", err)
	}
}

// TestMakeFar makes a token where the tokens are on another file system, from which nothing can be
// moved there.
func TestMakeFar(t *testing.T) {
	t.Setenv("SOFTHSM2_CONF", "")
	far, err := os.MkdirTemp("/dev/shm", "softhsm")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(far)
	dir := t.TempDir()
	if err := os.Symlink(far, filepath.Join(dir, "tokens")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if err := softhsm.Make(".", "far", []byte("1234"), []byte("12345678")); err != nil {
		t.Fatal(err)
	}
	if made, err := os.ReadDir(far); err != nil || len(made) != 1 {
		t.Errorf("made %v, %v", made, err)
	}
	if got, want := os.Getenv("SOFTHSM2_CONF"), filepath.Join(dir, "softhsm2.conf"); got != want {
		t.Errorf("afterward this process uses %s, want %s", got, want)
	}
}

// TestMakeNotModule has a module that is none: the tokens are not to blame.
func TestMakeNotModule(t *testing.T) {
	t.Setenv("SOFTHSM2_CONF", "")
	t.Setenv("SOFTHSM2_MODULE", "/etc/passwd")
	err := softhsm.Make(t.TempDir(), "label", []byte("1234"), []byte("12345678"))
	if !errors.Is(err, keystore.ErrUnavailable) || strings.Contains(err.Error(), "permissions") {
		t.Error(err)
	}
}
