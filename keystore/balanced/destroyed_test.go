//go:build cgo && !nopkcs11

package balanced_test

import (
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/balanced"
)

// TestDestroyedElsewhere has another process destroy a version on both tokens, as key retire
// does. Tokens that fail afterwards come back: one that lacks what all lack has the same keys.
func TestDestroyedElsewhere(t *testing.T) {
	w := newWorld(t, balanced.Config{}, hsm.Config{})
	if _, err := w.Provision("mac", keystore.HMACSHA256, make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	destroy := func(i int) {
		t.Helper()
		s, err := hsm.Open(hsm.Config{URI: w.tokens[i].URI, PIN: w.tokens[i].PIN})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Destroy("mac", 1), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	fail := func(which ...int) {
		t.Helper()
		for _, i := range which {
			w.modules[i].Inject(hsmtest.Fault{Removed: true})
		}
		for range 20 { // operations, so that each is missed
			if k, err := sealedKey(w); err == nil {
				k.Close()
			}
		}
		w.await(t, 2-len(which))
		for _, i := range which {
			w.modules[i].Clear()
		}
	}
	destroy(1)
	fail(1)
	for range 20 {
		if w.Conditions()[1].Usable {
			t.Fatal("a token that lacks what the other has is used")
		}
	}
	destroy(0)
	w.await(t, 2)
	fail(0, 1)
	w.await(t, 2)
	if versions, err := w.Lookup("mac"); err != nil || versions[0].Number != 2 {
		t.Errorf("%v, %v", versions, err)
	}
}
