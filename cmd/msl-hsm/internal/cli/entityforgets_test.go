//go:build cgo && !nopkcs11 && linux

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestEntityAddForgets searches the memory of entity add, when it is about to end, for the
// pre-shared keys that it brought into the token.
func TestEntityAddForgets(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t) // which has a memory of its own to search
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	dir := t.TempDir()
	write(t, dir, "c.yaml", fmt.Sprintf("keystore: {uri: %q, pin: %q}\nserver: {state: s.db}\n", (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), string(token.PIN)))
	ended := func(c *child) {
		t.Helper()
		if err := <-c.ended; err != nil {
			t.Fatalf("%v: %v: %s", c.Args, err, c.stderr.String())
		}
	}
	ended(launch(t, dir, "key", "create", "--set", "server", "--config", "c.yaml"))
	for name, derive := range map[string]bool{"drawn": false, "derived": true} {
		psk := entityauth.NewPSKFile(name, derive)
		if err := psk.Write(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		m.Inject(hsmtest.Fault{Function: "C_Finalize", Hang: true})
		c := launch(t, dir, "entity", "add", name, "--psk-file", name, "--config", "c.yaml")
		await(t, "C_Finalize", func() bool { return m.Counters().Fired > 0 })
		where, seen := wordsOf([][]byte{psk.Encryption, psk.MAC, psk.Wrapping}), make([]bool, 3)
		_, err := scan(c.Process.Pid, "r", overlap, func(part []byte) { where.find(part, seen) })
		m.Clear()
		ended(c)
		if errors.Is(err, fs.ErrPermission) {
			t.Skipf("the memory of another process cannot be read here: %v", err)
		}
		if err != nil || slices.Contains(seen, true) {
			t.Errorf("%s: the encryption, MAC and wrapping key are in memory: %t, %v", name, seen, err)
		}
	}
}
