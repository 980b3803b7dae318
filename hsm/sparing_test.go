package hsm_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestSparing has two stores on one module, and takes the token of one away: the sessions of
// the other are taken from it once, and not again and again. The token that is back is found.
func TestSparing(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	if err := hsm.InitToken(token.Module, "away", []byte("12345678"), readPIN(t, token)); err != nil {
		t.Fatal(err)
	}
	at := func(label string) *hsm.Store {
		return open(t, hsm.Config{URI: (&hsm.URI{Token: label, ModulePath: m.Path}).String(), PIN: token.PIN})
	}
	works, away := at(token.Label), at("away")
	v, err := away.Create("mac", keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	mac := v.Key.(keystore.MAC)
	tag, err := mac.Sum(nil)
	if err != nil {
		t.Fatal(err)
	}
	before := m.Counters().Calls["C_Finalize"]
	m.Inject(hsmtest.Fault{Removed: true, Token: "away"})
	if _, err := mac.Sum(nil); !errors.Is(err, keystore.ErrUnavailable) {
		t.Fatal(err)
	}
	k, err := works.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(1200 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := mac.Sum(nil); !errors.Is(err, keystore.ErrUnavailable) {
			t.Fatal(err)
		}
		if _, err := k.(keystore.MAC).Sum(nil); err != nil {
			t.Fatalf("the other token: %v", err)
		}
	}
	if n := m.Counters().Calls["C_Finalize"] - before; n > 1 {
		t.Errorf("the module was finalized %d times", n)
	}
	m.Clear()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if got, err := mac.Sum(nil); err == nil && bytes.Equal(got, tag) {
			break
		} else if time.Now().After(end) {
			t.Fatalf("the token is back: %v", err)
		}
	}
	if _, err := k.(keystore.MAC).Sum(nil); err != nil {
		t.Errorf("the other token, at the end: %v", err)
	}
}
