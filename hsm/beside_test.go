package hsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// copyOf is a copy of a library.
func copyOf(t *testing.T, library string) string {
	t.Helper()
	raw, err := os.ReadFile(library)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Base(library), string(raw), 0o700)
}

// TestHangsBeside has a call hang in which one caller opens, lists or closes: a store that is
// open, of the same module or another, recovers, and others are listed and opened.
func TestHangsBeside(t *testing.T) {
	token := hangToken(t)
	at := func(m *hsmtest.Module) hsm.Config {
		return hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN, Wait: 300 * time.Millisecond}
	}
	list := func(m *hsmtest.Module) error { _, err := hsm.Slots(m.Path, ""); return err }
	opens := func(m *hsmtest.Module) error {
		s, err := hsm.Open(at(m))
		if err == nil {
			err = s.Close()
		}
		return err
	}
	for name, hangs := range map[string]struct {
		function string
		do       func(*hsmtest.Module) error
		same     bool // the others are of the same module
	}{
		"list":                     {"C_GetTokenInfo", list, true},
		"list slots":               {"C_GetSlotInfo", list, true},
		"open":                     {"C_GetTokenInfo", opens, true},
		"open a session":           {"C_OpenSession", opens, true},
		"list in another module":   {"C_GetSlotList", list, false},
		"initialize":               {"C_Initialize", opens, false},
		"finalize":                 {"C_Finalize", opens, false},
		"finalize after a listing": {"C_Finalize", list, false},
	} {
		t.Run(name, func(t *testing.T) {
			hung := hsmtest.New(t, token.Module)
			other := hung
			if !hangs.same {
				hung = hsmtest.New(t, copyOf(t, token.Module)) // which has an initialization of its own
			}
			s := open(t, at(other))
			k, err := s.Generate(keystore.HMACSHA256)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Seal(k, nil); err != nil {
				t.Fatal(err)
			}
			gone := hsmtest.Fault{Function: "C_Sign", Code: pkcs11.CKR_SESSION_HANDLE_INVALID, Times: 2}
			other.Inject(gone)
			hang := []hsmtest.Fault{{Function: hangs.function, Hang: true, Times: 1}}
			if hangs.same {
				hang = append(hang, gone)
			}
			hung.Inject(hang...)
			done := make(chan error, 1)
			go func() { done <- hangs.do(hung) }()
			for hung.Counters().Fired == 0 {
				time.Sleep(time.Millisecond)
			}
			var third *hsm.Store // closed when nothing hangs any more
			for _, other := range []struct {
				what string
				op   func() error
			}{
				{"recover", func() error { _, err := k.(keystore.MAC).Sum(nil); return err }},
				{"open", func() (err error) { third, err = hsm.Open(at(other)); return err }},
				{"list", func() error { return list(other) }},
			} {
				within := make(chan error, 1)
				go func() { within <- other.op() }()
				select {
				case err := <-within:
					if err != nil {
						t.Errorf("%s: %v", other.what, err)
					}
				case <-time.After(3 * time.Second):
					t.Errorf("%s: held up", other.what)
				}
			}
			hung.Clear()
			if err := <-done; err != nil && !errors.Is(err, keystore.ErrBusy) {
				t.Error(err)
			}
			if third == nil {
				t.Fatal("nothing was opened")
			}
			if err := third.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
