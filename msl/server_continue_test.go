package msl_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/msl-hsm/msl-hsm/msl"
)

// replace replaces the server by another one with those limits.
func (r *recorded) replace(limits msl.Limits) {
	old := r.server
	r.server = &msl.Server{
		Name: old.Name, Local: old.Local, Peers: old.Peers, Users: old.Users, KeyExchanges: old.KeyExchanges, Issuer: old.Issuer,
		State: old.State, Directory: old.Directory, ServiceTokens: old.ServiceTokens, Capabilities: old.Capabilities, Limits: limits,
	}
	r.server.Continue(old)
}

// TestContinueGuesses replaces a server between wrong guesses of a password: they count on, and
// the user gets in where a login succeeded before.
func TestContinueGuesses(t *testing.T) {
	r := newRecorded(t)
	if e := r.serve(pskClient1.message(byPSK("client1"), one(rightPassword), hello)); e.served != nil || !e.called {
		t.Fatal("refused")
	}
	guess := func(want msl.Code) {
		t.Helper()
		r.mustRefuse(t, pskClient2.message(byPSK("client2"), one(wrongPassword), hello), want, 1)
	}
	for range 5 {
		guess(msl.ErrEmailPasswordIncorrect)
	}
	for range 5 {
		r.replace(r.server.Limits)
		guess(msl.ErrEmailPasswordIncorrect)
	}
	r.replace(msl.Limits{PasswordsAtATime: 2})
	guess(msl.ErrInternalException)
	if e := r.serve(pskClient1.message(byPSK("client1"), one(rightPassword), hello)); e.served != nil || !e.called {
		t.Error("the user does not get in at the own device")
	}
}

// TestContinueRefusals replaces a server whose limit of refusals was reached, by one with the
// same limit, and with another one.
func TestContinueRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorded(t)
		limits := msl.Limits{ErrorsPerSecond: 1000, ErrorsPerSource: 5}
		r.server.Limits = limits
		answered := func() (n int) {
			for range 20 {
				if e := r.serve(pskClient1.message(byPSK("client1"), one(object{"handshake": true}), hello)); e.served == nil {
					n++
				}
			}
			return n
		}
		for _, want := range []int{5, 0, 6} {
			if n := answered(); n != want {
				t.Errorf("%d refusals were answered, want %d", n, want)
			}
			if want == 0 {
				limits.ErrorsPerSource = 6
			}
			r.replace(limits)
		}
		r.server.Close()
	})
}

// TestContinueMemory replaces a server that is reading a large message.
func TestContinueMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorded(t)
		large := newStaller(`{"x":"` + strings.Repeat("x", 900<<10))
		slow := r.started("first", large, echo)
		synctest.Wait()
		before, _ := r.server.InUse()
		r.replace(r.server.Limits)
		if after, _ := r.server.InUse(); before == 0 || after != before {
			t.Errorf("%d bytes are in use, and %d after the server was replaced", before, after)
		}
		large.Interrupt()
		<-slow
		r.checkNothingInUse(t)
		r.server.Close()
	})
}
