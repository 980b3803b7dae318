package softhsm

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/msl-hsm/msl-hsm/hsm"
)

// TB is the part of testing.TB that Temp needs, so that programs that make tokens do not
// link package testing.
type TB interface {
	Helper()
	Cleanup(func())
	Fatal(args ...any)
	Skip(args ...any)
	TempDir() string
}

// shared is the directory of the tokens of all tests that run in this process:
// SoftHSM has one configuration at a time.
var shared struct {
	sync.Mutex
	dir   string
	users int
}

// Temp makes a throwaway token that is removed with the test. Close the stores on it
// first, with Cleanup. If SoftHSM is missing, the test is skipped, or fails if
// MSL_TEST_REQUIRE names softhsm.
func Temp(t TB) *Token {
	t.Helper()
	if _, err := FindModule(); err != nil {
		if strings.Contains(os.Getenv("MSL_TEST_REQUIRE"), "softhsm") {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir, err := join()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leave)
	pin := []byte(random())
	label := "test-" + random()
	soPIN := []byte(random())
	token, err := New(dir, label, pin, soPIN)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, pin, 0o600); err != nil {
		t.Fatal(err)
	}
	token.PIN, token.SOPIN = hsm.PINSource("file:"+path), soPIN
	return token
}

func random() string {
	b := make([]byte, 8)
	rand.Read(b)
	return hex.EncodeToString(b)
}

func join() (string, error) {
	shared.Lock()
	defer shared.Unlock()
	if shared.users == 0 {
		dir, err := os.MkdirTemp("", "softhsm")
		if err != nil {
			return "", err
		}
		shared.dir = dir
	}
	shared.users++
	return shared.dir, nil
}

// leave removes the directory together with the last test that uses it.
func leave() {
	shared.Lock()
	defer shared.Unlock()
	shared.users--
	if shared.users == 0 {
		os.RemoveAll(shared.dir)
		os.Unsetenv("SOFTHSM2_CONF")
	}
}
