package hsm_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestVersionLeftOut has searches find one object less than there are while the token is opened
// again: what is sealed under the version left out is not taken for foreign.
func TestVersionLeftOut(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	var blobs [2][]byte
	for i := range blobs {
		k, err := s.Generate(keystore.AES128CBC)
		if err == nil {
			blobs[i], err = s.Seal(k, nil)
		}
		for _, role := range []keystore.Role{keystore.RoleSealMAC, keystore.RoleSealSession} {
			if _, failed := s.Create(role.Label("msl"), role.Algorithm()); err == nil {
				err = failed
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, searches := range []int{1, 5} {
		var faults []hsmtest.Fault
		for i := range searches { // of two calls each, of which the first returns objects
			faults = append(faults, hsmtest.Fault{Function: "C_FindObjects", Length: new(uint(2)), Skip: 2 * i, Times: 1})
		}
		m.Inject(append(faults, hsmtest.Fault{Function: "C_SignInit", VanishSessions: true, Times: 1})...)
		for round := range 2 {
			for i, blob := range blobs {
				k, err := s.Unseal(keystore.AES128CBC, blob, nil)
				if err == nil {
					err = k.Close()
				}
				gone := round == 0 && errors.Is(err, keystore.ErrUnavailable) // while no search finds it
				if errors.Is(err, keystore.ErrForeign) || err != nil && !gone {
					t.Errorf("%d searches, version %d: %v", searches, i+1, err)
				}
			}
		}
		if fired := m.Counters().Fired; fired != searches+1 {
			t.Errorf("%d of %d faults were hit", fired, searches+1)
		}
	}
}

// TestProvisionedVersionLeftOut has searches find one object less than there are while the token is
// opened again: the older version of a key works as soon as a search finds it.
func TestProvisionedVersionLeftOut(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	for range 2 {
		if _, err := s.Create("mac", keystore.HMACSHA256); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.Lookup("mac")
	if err != nil {
		t.Fatal(err)
	}
	var faults []hsmtest.Fault
	for i := range 8 { // of two calls each, of which the first returns objects
		faults = append(faults, hsmtest.Fault{Function: "C_FindObjects", Length: new(uint(1)), Skip: 2 * i, Times: 1})
	}
	m.Inject(append(faults, hsmtest.Fault{Function: "C_SignInit", VanishSessions: true, Times: 1})...)
	var failed [2]error
	for _, v := range all {
		_, failed[v.Number-1] = v.Key.(keystore.MAC).Sum(nil)
	}
	m.Clear()
	if (failed[0] == nil) == (failed[1] == nil) {
		t.Fatalf("while the searches leave out one: %v", failed)
	}
	for _, v := range all {
		if _, err := v.Key.(keystore.MAC).Sum(nil); err != nil {
			t.Errorf("version %d: %v", v.Number, err)
		}
	}
}

// TestDestroyLeftOut has a search find one object less than there are: a key is not told to be
// destroyed of which a version is left.
func TestDestroyLeftOut(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	for range 3 {
		if _, err := s.Create("mac", keystore.HMACSHA256); err != nil {
			t.Fatal(err)
		}
	}
	m.Inject(hsmtest.Fault{Function: "C_FindObjects", Length: new(uint(1)), Times: 1})
	err := s.Destroy("mac", 0)
	m.Clear()
	if left := versions(t, s)["mac"]; err != nil || len(left) > 0 {
		t.Errorf("versions %v are left: %v", left, err)
	}
}

// TestLoggedOut ends the login behind the store: a key is not told to be absent because a session
// without a login does not show it.
func TestLoggedOut(t *testing.T) {
	s, token := newStore(t)
	other := open(t, hsm.Config{URI: token.URI, PIN: token.PIN})
	for _, label := range []string{"looked up", "destroyed"} {
		if _, err := other.Create(label, keystore.HMACSHA256); err != nil {
			t.Fatal(err)
		}
	}
	for what, op := range map[string]func() error{
		"look up": func() error { _, err := s.Lookup("looked up"); return err },
		"destroy": func() error { return s.Destroy("destroyed", 1) },
		"list": func() error {
			all, err := s.List()
			if len(all) < 4 {
				err = errors.Join(err, fmt.Errorf("%d keys", len(all)))
			}
			return err
		},
	} {
		a := newAttacker(t, token)
		if err := a.Logout(a.session); err != nil {
			t.Fatal(err)
		}
		if err := op(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestAllLeftOut has a module find nothing any more, as one that cannot read its files: a key that is
// looked up for the first time is not known to be absent.
func TestAllLeftOut(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	if _, err := s.Create("mac", keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	m.Inject(hsmtest.Fault{Function: "C_FindObjects", Length: new(uint(0))})
	if _, err := s.Lookup("other"); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("while nothing is found: %v", err)
	}
	m.Clear()
	if _, err := s.Lookup("other"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("of a key that is not there: %v", err)
	}
}
