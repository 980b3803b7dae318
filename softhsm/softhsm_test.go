package softhsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

func TestTemp(t *testing.T) {
	a, b := softhsm.Temp(t), softhsm.Temp(t)
	if a.Label == b.Label || a.Config != b.Config {
		t.Errorf("two tokens %q and %q, of %s and %s", a.Label, b.Label, a.Config, b.Config)
	}
	for _, token := range []*softhsm.Token{a, b} {
		s, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for path, want := range map[string]os.FileMode{filepath.Dir(a.Config): 0o700, a.Config: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, want mode %v", path, err, want)
		}
	}
}

// TestLasting opens a token again after everybody has left it.
func TestLasting(t *testing.T) {
	if _, err := softhsm.FindModule(); err != nil {
		if strings.Contains(os.Getenv("MSL_TEST_REQUIRE"), "softhsm") {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	t.Setenv("SOFTHSM2_CONF", "") // put back afterwards
	path := filepath.Join(dir, "pin")
	if err := os.WriteFile(path, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		token, err := softhsm.New(filepath.Join(dir, "token"), "lasting", []byte("1234"), []byte("12345678"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := hsm.Open(hsm.Config{URI: token.URI, PIN: hsm.PINSource("file:" + path)})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			_, err = s.Create("kept", keystore.HMACSHA256)
		} else {
			_, err = s.Lookup("kept")
		}
		if err := errors.Join(err, s.Close()); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
	}
}

func TestFindModule(t *testing.T) {
	t.Setenv("SOFTHSM2_MODULE", "/nowhere/libsofthsm2.so")
	if _, err := softhsm.FindModule(); err == nil || !strings.Contains(err.Error(), "SOFTHSM2_MODULE") {
		t.Errorf("a module that is not there: %v", err)
	}
}

// TestPage compares the tests that docs/testing.md shows with service_test.go.
func TestPage(t *testing.T) {
	source, err := os.ReadFile("service_test.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := strings.Replace(string(source), "package softhsm_test", "package service_test", 1)
	if _, block, _ := strings.Cut(string(page), "```go\n"); !strings.HasPrefix(block, shown+"```\n") {
		t.Error("the tests in docs/testing.md are not those of service_test.go")
	}
}
