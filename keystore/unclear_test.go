package keystore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestPINPause counts how often a PIN is given in a minute, and has no pause grow forever.
func TestPINPause(t *testing.T) {
	times := 0
	for at := time.Duration(0); at < time.Minute; at += keystore.PINPause(times) {
		times++
	}
	if times > 9 || keystore.PINPause(0) != 0 || keystore.PINPause(1) <= 0 || keystore.PINPause(1000) != time.Minute {
		t.Errorf("%d times in a minute; pauses %v, %v, %v", times, keystore.PINPause(0), keystore.PINPause(1), keystore.PINPause(1000))
	}
}

// TestUnclear keeps what an error is, and its text.
func TestUnclear(t *testing.T) {
	err := keystore.Unclear(keystore.ErrUnavailable)
	if !errors.Is(err, keystore.ErrUnclear) || !errors.Is(err, keystore.ErrUnavailable) || err.Error() != keystore.ErrUnavailable.Error() {
		t.Error(err)
	}
}
