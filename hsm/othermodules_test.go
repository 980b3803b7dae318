package hsm_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestThroughOthers makes an exchange, and with MSL_SOAK runs the conformance suite, through
// modules in front of SoftHSM: p11-kit's proxy, which returns a function list with a state of
// its own on each call of C_GetFunctionList, and OpenSC's spy.
func TestThroughOthers(t *testing.T) {
	others := []struct{ name, file string }{{"p11-kit", "p11-kit-proxy.so"}, {"pkcs11-spy", "pkcs11-spy.so"}}
	for _, module := range others {
		t.Run(module.name, func(t *testing.T) {
			path := findLibrary(module.file)
			if path == "" {
				missing(t, module.name, module.file)
			}
			token := softhsm.Temp(t)
			// The proxy finds SoftHSM by p11-kit's own configuration, which Debian's
			// package of SoftHSM has; the spy needs a setting.
			t.Setenv("PKCS11SPY", token.Module)
			t.Setenv("PKCS11SPY_OUTPUT", os.DevNull)
			c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: path}).String(), PIN: token.PIN}
			s := open(t, c)
			seal(t, s)
			if err := (&use{s: s}).exchange(); err != nil {
				t.Error(err)
			}
			if soak() {
				conforms(t, c)
			}
		})
	}
}

// conforms runs the conformance suite of everything that SoftHSM can do.
func conforms(t *testing.T, c hsm.Config) {
	required := slices.DeleteFunc(keystore.Algorithms(), func(a keystore.Algorithm) bool { return a == keystore.AESWrap128 })
	c.AllowWeak = []string{"imported"} // the vectors come with private keys
	keystoretest.TestStore(t, func(t *testing.T) keystore.Store { return open(t, c) }, required...)
}

// TestThroughClient opens a token through p11-kit's client, which speaks to a server
// in another process. It passes on only the mechanisms whose parameters it knows, and
// wrapping with AES is not one of them (up to 0.25): a module that cannot keep session
// keys is refused, and the error says what it cannot do.
func TestThroughClient(t *testing.T) {
	path := findLibrary("p11-kit-client.so")
	program, err := exec.LookPath("p11-kit")
	if path == "" || err != nil {
		missing(t, "p11-kit", "p11-kit-client.so")
	}
	token := softhsm.Temp(t)
	socket := filepath.Join(t.TempDir(), "socket")
	server := exec.Command(program, "server", "--foreground", "--name", socket, "--provider", token.Module, "pkcs11:token="+token.Label)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	t.Setenv("P11_KIT_SERVER_ADDRESS", "unix:path="+socket)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: path}).String(), PIN: token.PIN}
	s, err := hsm.Open(c)
	if err == nil { // a newer one
		seal(t, s)
		s.Close()
		conforms(t, c)
		return
	}
	if want := "wrap-unwrap: the module cannot do it (hsm: C_WrapKey: CKR_MECHANISM_INVALID: to seal keys the vendor would have to add CKM_AES_KEY_WRAP"; !errors.Is(err, keystore.ErrWeakKey) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// missing skips the test, or fails it where the module is required.
func missing(t *testing.T, name, file string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("MSL_TEST_REQUIRE"), ","), name) {
		t.Fatalf("%s is not installed, and MSL_TEST_REQUIRE names %s", file, name)
	}
	t.Skipf("%s is not installed", file)
}

func findLibrary(file string) string {
	for _, pattern := range []string{"/usr/lib/*/", "/usr/lib64/", "/usr/lib/", "/usr/lib64/pkcs11/", "/usr/lib/*/pkcs11/"} {
		if found, err := filepath.Glob(pattern + file); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	return ""
}
