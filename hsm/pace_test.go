package hsm_test

import (
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// newDistant opens a throwaway token with sealing keys, through a module that misbehaves
// from the beginning.
func newDistant(t testing.TB, c hsm.Config, faults ...hsmtest.Fault) (*hsm.Store, *hsmtest.Module) {
	t.Helper()
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(faults...)
	c.URI, c.PIN = (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), token.PIN
	s := open(t, c)
	seal(t, s)
	return s, m
}

// A key knows how long its module takes at least, and not what it took once.
func TestLatency(t *testing.T) {
	const delay = 2 * time.Millisecond
	latency := func(s *hsm.Store) time.Duration {
		k, err := s.Generate(keystore.HMACSHA256)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		for range 50 {
			if _, err := k.(keystore.MAC).Sum([]byte("data")); err != nil {
				t.Fatal(err)
			}
		}
		return k.(keystore.Timed).Latency()
	}
	near, m := newFaulty(t, hsm.Config{})
	before := latency(near)
	m.Inject(hsmtest.Fault{Function: "C_Sign", Delay: delay})
	if now := latency(near); before <= 0 || now <= 0 || now > before {
		t.Errorf("a device that hesitates has a latency of %v, and had one of %v", now, before)
	}
	distant, _ := newDistant(t, hsm.Config{}, hsmtest.Fault{Delay: delay})
	if far := latency(distant); far < 2*delay || far > time.Second {
		t.Errorf("a latency of %v, where C_SignInit and C_Sign take %v each", far, delay)
	}
}
