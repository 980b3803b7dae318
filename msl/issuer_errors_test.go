package msl_test

import (
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// Two keys that cannot be sealed are one error, of one line.
func TestSealErrorIsOneLine(t *testing.T) {
	store := newFaultyStore(t)
	issuer := newNetwork(t, store).server.Issuer
	store.watch(func(_ int, op string) error {
		if op == "Seal" {
			return errDevice
		}
		return nil
	})
	keys := must(msl.GenerateSessionKeys(store))
	defer keys.Release()
	if _, err := issuer.Issue("device", nil, 1, keys); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("error: %q", err)
	}
}
