//go:build cgo && !nopkcs11

package cli

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// keysOf are the keys that a token holds, as "label version N".
func keysOf(t *testing.T, token *softhsm.Token) map[string]bool {
	t.Helper()
	s, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, k := range all {
		keys[fmt.Sprintf("%s version %d", k.Label, k.Version)] = true
	}
	return keys
}

var announcement = regexp.MustCompile(`(?m)^(created|destroyed|imported) (\S+ version \d+)`)

// TestFaultsOfKeyCommands has the module fail while commands make, rotate, import and
// destroy keys: what they announced is true, and no other key is gone.
func TestFaultsOfKeyCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t)
	t.Parallel()
	lockModule(t)
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	dir := t.TempDir()
	secret, config := filepath.Join(dir, "secret"), filepath.Join(dir, "c.yaml")
	write(t, dir, "secret", strings.Repeat("ab", 16))
	write(t, dir, "c.yaml", fmt.Sprintf("keystore: {uri: %q, pin: \"%s\"}\nserver: {state: %s}\n", (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), token.PIN, filepath.Join(dir, "s.db")))
	command := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := runCheaply(append(args, "--config", config), strings.NewReader(""), &out, &errs)
		return code, out.String(), errs.String()
	}
	if code, _, errs := command("key", "create", "--set", "server"); code != 0 {
		t.Fatal(errs)
	}
	n, step, before := 0, 293, keysOf(t, token)
	if os.Getenv("MSL_SOAK") != "" {
		step = 5
	}
	for _, args := range [][]string{
		{"key", "create", "--set", "server", "--rotate"},
		{"key", "create", "extra", "--algorithm", "aes128-cbc"},
		{"key", "import", "given", "--algorithm", "aes128-cbc", "--file", secret},
		{"key", "destroy", "msl-seal-wrapping", "--version", "1", "--yes"},
		{"key", "create", "--set", "server"},
	} {
		for _, function := range []string{"C_GetAttributeValue", "C_FindObjects", "C_DestroyObject", "C_GenerateKey", "C_CreateObject"} {
			for skip := 7 * n % step; skip < 300; skip += step {
				n++
				m.Inject(hsmtest.Fault{Function: function, Code: []uint{0x30, 0x5, 0x82, 0x80000001}[n%4], Skip: skip, Times: []int{1, 3, 0}[n%3], After: n%5 == 0})
				code, out, errs := command(args...)
				fired := m.Counters().Fired
				m.Clear()
				after := keysOf(t, token)
				announced(t, fmt.Sprintf("%v with %s failing after %d", args, function, skip), before, after, code, out, errs)
				before = after
				if fired == 0 {
					break
				}
			}
		}
	}
	t.Logf("%d runs", n)
}

// announced checks that the announcement is true.
func announced(t *testing.T, what string, before, after map[string]bool, code int, out, errs string) {
	t.Helper()
	expected := maps.Clone(before)
	for _, a := range announcement.FindAllStringSubmatch(out, -1) {
		if expected[a[2]] = true; a[1] == "destroyed" {
			delete(expected, a[2])
		}
		if a[1] == "destroyed" && after[a[2]] {
			t.Errorf("%s: %s is there: %s", what, a[0], errs)
		}
	}
	for key := range expected {
		// A destruction that failed may have been done all the same.
		if !after[key] && !(code != 0 && strings.Contains(what, "destroy "+strings.Fields(key)[0])) {
			t.Errorf("%s: %s is gone: exit %d, %s%s", what, key, code, out, errs)
		}
	}
	if code != 0 && strings.Count(errs, "\n") != 1 {
		t.Errorf("%s: the error is not one line: %q", what, errs)
	}
}
