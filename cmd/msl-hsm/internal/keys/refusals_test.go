package keys

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// TestRefusals starts a process again and again whose token does not accept the PIN: soon it is not
// given any more, until somebody removes the file.
func TestRefusals(t *testing.T) {
	refused, unclear := keystore.ErrPIN, keystore.Unclear(keystore.ErrUnavailable)
	for name, c := range map[string]struct {
		pin    string
		err    error
		tries  int
		pauses int
		code   int
	}{
		"refused":        {"file:pin", refused, mostRefusals, 0, exit.Secret},
		"unclear":        {"file:pin", unclear, 3, 2, exit.Secret},
		"unclear prompt": {"prompt", unclear, 1, 0, exit.Secret},
		"not given":      {"file:pin", keystore.NoPINf("the PIN is empty"), 5, 0, exit.Secret},
		"away":           {"file:pin", keystore.ErrUnavailable, 5, 0, exit.Keystore},
		"stopped":        {"file:pin", unclear, 5, 5, exit.Keystore},
	} {
		t.Run(name, func(t *testing.T) {
			k := &config.Keystore{PIN: c.pin, Refusals: filepath.Join(t.TempDir(), "refused")}
			pauses := []time.Duration{time.Microsecond, time.Microsecond}
			if name == "stopped" {
				ends := make(chan struct{})
				close(ends)
				k.Ends, pauses = ends, []time.Duration{time.Hour}
			}
			tries, paused, now := 0, 0, c.err
			k.Pauses = func(time.Duration) { paused++ }
			start := func() error {
				_, err := withinTries(k, pauses, func() (Store, error) { tries++; return nil, now })
				return err
			}
			var err error
			for range 5 {
				if err = start(); exit.Code(err) != c.code {
					t.Errorf("%v: exit code %d, want %d", err, exit.Code(err), c.code)
				}
			}
			if tries != c.tries || paused != c.pauses {
				t.Errorf("the PIN was given %d times, with %d pauses, want %d and %d", tries, paused, c.tries, c.pauses)
			}
			if now = nil; tries == 5 {
				return
			}
			if !strings.Contains(err.Error(), k.Refusals) {
				t.Errorf("%v does not name the file", err)
			}
			if err := errors.Join(os.Remove(k.Refusals), start()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRefusalsForgotten has a PIN accepted after one was refused: the next ones count anew.
func TestRefusalsForgotten(t *testing.T) {
	k := &config.Keystore{PIN: "file:pin", Refusals: filepath.Join(t.TempDir(), "refused")}
	for _, now := range []error{keystore.ErrPIN, nil, keystore.ErrPIN, nil} {
		if _, err := withinTries(k, nil, func() (Store, error) { return nil, now }); !errors.Is(err, now) {
			t.Errorf("%v, want %v", err, now)
		}
	}
}

// TestRefusalsRemoved has the file removed, as its error advises, while the PIN is being given: the
// PIN was accepted.
func TestRefusalsRemoved(t *testing.T) {
	k := &config.Keystore{PIN: "file:pin", Refusals: filepath.Join(t.TempDir(), "refused")}
	for _, now := range []error{keystore.ErrPIN, nil} {
		_, err := withinTries(k, nil, func() (Store, error) {
			os.Remove(k.Refusals)
			return soft.New(), now
		})
		if !errors.Is(err, now) {
			t.Errorf("%v, want %v", err, now)
		}
	}
}

// TestRefusalsNowhere has no directory for the file: the PIN is not given, since nothing would count.
func TestRefusalsNowhere(t *testing.T) {
	k := &config.Keystore{PIN: "file:pin", Refusals: filepath.Join(t.TempDir(), "absent", "refused")}
	_, err := withinTries(k, nil, func() (Store, error) {
		t.Error("the PIN is given")
		return nil, keystore.ErrPIN
	})
	if exit.Code(err) != exit.Usage || !strings.Contains(err.Error(), "STATE_DIRECTORY") {
		t.Errorf("exit code %d, %v", exit.Code(err), err)
	}
}
