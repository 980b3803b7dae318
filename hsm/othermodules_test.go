package hsm_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestThroughOthers runs the conformance suite through modules that stand before
// SoftHSM: p11-kit's proxy, which gives a function list with a state of its own
// each time it is asked for one, and OpenSC's spy.
func TestThroughOthers(t *testing.T) {
	for _, module := range []struct{ name, file string }{
		{"p11-kit", "p11-kit-proxy.so"},
		{"pkcs11-spy", "pkcs11-spy.so"},
	} {
		t.Run(module.name, func(t *testing.T) {
			path := findLibrary(module.file)
			if path == "" {
				missing(t, module.name, module.file)
			}
			token := softhsm.Temp(t)
			// The proxy finds SoftHSM by p11-kit's own configuration, which Debian's
			// package of SoftHSM has; the spy is told.
			t.Setenv("PKCS11SPY", token.Module)
			t.Setenv("PKCS11SPY_OUTPUT", os.DevNull)
			c := hsm.Config{URI: "pkcs11:token=" + token.Label + "?module-path=" + path, PIN: token.PIN}
			seal(t, open(t, c))
			required := slices.DeleteFunc(keystore.Algorithms(), func(a keystore.Algorithm) bool { return a == keystore.AESWrap128 })
			keystoretest.TestStore(t, func(t *testing.T) keystore.Store { return open(t, c) }, required...)
		})
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
