package soft_test

import (
	"crypto/fips140"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/fipstest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// TestFIPS runs TestInFIPS in the FIPS modes of Go.
func TestFIPS(t *testing.T) { fipstest.Run(t, "^TestInFIPS$", "") }

const approved = `{"cipher":"AES-256-GCM","kdf":"PBKDF2-HMAC-SHA256"`

func cheapInFIPS() soft.Config {
	return soft.Config{Cost: soft.Cost{Iterations: 1}, CheapForTests: true}
}

func TestInFIPS(t *testing.T) {
	if !fips140.Enabled() {
		t.Skip("not in FIPS mode")
	}
	usual := filepath.Join(t.TempDir(), "usual")
	s, err := soft.Config{Cost: cheap().Cost}.Create(usual, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if h := headerOf(t, usual); !strings.HasPrefix(h, approved) || !strings.HasSuffix(h, `"iterations":600000}`) {
		t.Errorf("the header is %s", h)
	}
	path := filepath.Join(t.TempDir(), "keys")
	if s, err = cheapInFIPS().Create(path, []byte("passphrase")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create("key", keystore.AES128CBC); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err = cheapInFIPS().Open(path, []byte("passphrase")); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := keystore.Find[keystore.Cipher](s, "key"); err != nil {
		t.Error(err)
	}
	if _, err := cheapInFIPS().Open(path, []byte("wrong passphrase")); !errors.Is(err, keystore.ErrPIN) {
		t.Errorf("another passphrase: %v", err)
	}
	fipsOpensOlder(t)
}

// fipsOpensOlder opens a file that was made outside of FIPS mode, and makes one of it that
// is not.
func fipsOpensOlder(t *testing.T) {
	t.Helper()
	old, err := os.ReadFile("testdata/version1.keys")
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, old)
	s, err := cheapInFIPS().Open(path, []byte("passphrase"))
	if fips140.Enforced() {
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "fips140=on") {
			t.Errorf("a file of ChaCha20: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	checkGolden(t, s)
	if _, err := s.Create("another", keystore.AES128CBC); err != nil {
		t.Fatal(err)
	}
	if h := headerOf(t, path); !strings.HasPrefix(h, approved) {
		t.Errorf("the header is %s", h)
	}
}
