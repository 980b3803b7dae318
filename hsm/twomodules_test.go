package hsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestTwoModules hangs a call into a module while another one is used, whose sessions have the same
// handles: that the one is busy does not hide that the other one hangs.
func TestTwoModules(t *testing.T) {
	token := hangToken(t)
	whole, err := os.ReadFile(token.Module)
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(t.TempDir(), "second.so")
	if err := os.WriteFile(second, whole, 0o700); err != nil {
		t.Fatal(err)
	}
	m := hsmtest.New(t, token.Module)
	const limit = 100 * time.Millisecond
	with := func(path string) *hsm.Store {
		return patiently(t, func() (*hsm.Store, error) {
			return hsm.Open(hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: path}).String(), PIN: token.PIN, Sessions: 1, CallTimeout: limit})
		})
	}
	hanging, busy := with(m.Path), with(second)
	defer busy.Close()
	defer hanging.Close()
	m.Inject(hsmtest.Fault{Function: "C_GenerateRandom", Hang: true, Times: 1})
	defer m.Clear()
	go hanging.Random(make([]byte, 16))
	for end := time.Now().Add(20 * limit); hanging.Stats().Stuck == ""; {
		if time.Now().After(end) {
			t.Fatal("a call that does not return is not noticed")
		}
		if err := busy.Random(make([]byte, 16)); err != nil && !errors.Is(err, keystore.ErrUnavailable) {
			t.Fatal(err)
		}
	}
}
