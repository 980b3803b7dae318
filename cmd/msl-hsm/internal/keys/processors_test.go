//go:build cgo && !nopkcs11

package keys

import (
	"runtime"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestMakeWay wants more goroutines to run at a time for a module that is waited for,
// however often it is opened, or since then, unless the environment says how many, and for no
// other module.
func TestMakeWay(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	k := config.Default().Keystore
	k.URI, k.PIN = (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), string(token.PIN)
	s, err := hsm.Open(hsm.Config{URI: k.URI, PIN: token.PIN})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, r := range keystore.SealingRoles() {
		if _, err := s.Create(r.Label(keystore.DefaultPrefix), r.Algorithm()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		delay time.Duration
		env   string
		want  int
	}{
		{"fast", 0, "", 3},
		{"slow", time.Millisecond, "", AtOnce},
		{"the environment", time.Millisecond, "3", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
			t.Setenv("GOMAXPROCS", c.env)
			if c.delay > 0 {
				m.Inject(hsmtest.Fault{Delay: c.delay})
				defer m.Clear()
			}
			for range 2 {
				s, err := openPKCS11(&k)
				if err != nil {
					t.Fatal(err)
				}
				want(t, c.want)
				runtime.GOMAXPROCS(3)
				makeWayNow(s)
				want(t, c.want)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func want(t *testing.T, n int) {
	t.Helper()
	if now := runtime.GOMAXPROCS(0); now != n {
		t.Errorf("GOMAXPROCS is %d, want %d", now, n)
	}
}
