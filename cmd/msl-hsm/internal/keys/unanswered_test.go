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

// TestRefusalsUnanswered has the process end again and again while the token is given the PIN, as by a
// library that crashes: soon it is not given any more. An answer in between is none of these ends.
func TestRefusalsUnanswered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "refused")
	given := 0
	start := func(crashes bool) error {
		k := &config.Keystore{PIN: "file:pin", Refusals: path}
		var left []byte
		_, err := withinTries(k, nil, func() (Store, error) {
			err := k.Login(func() (err error) {
				given++
				left, err = os.ReadFile(path)
				return err
			})
			if crashes {
				return nil, errors.Join(err, keystore.ErrUnavailable)
			}
			return soft.New(), err
		})
		if crashes && left != nil { // as it was then
			err = errors.Join(err, os.WriteFile(path, left, 0o600))
		}
		return err
	}
	for range 3 {
		start(true)
	}
	if err := start(false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is there although the PIN was accepted")
	}
	given = 0
	var err error
	for range 10 {
		err = start(true)
	}
	if given != 4 || exit.Code(err) != exit.Secret || !strings.Contains(err.Error(), path) {
		t.Errorf("the PIN was given %d times, then exit code %d, %v", given, exit.Code(err), err)
	}
}

// TestRefusalsLate has the process end after its key store was opened, while one of several tokens has
// not answered: that counts, too.
func TestRefusalsLate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "refused")
	starts := 0
	for ; starts < 10; starts++ {
		k, answer, begun := &config.Keystore{PIN: "file:pin", Refusals: path}, make(chan bool), make(chan bool)
		over := make(chan error)
		_, err := withinTries(k, nil, func() (Store, error) {
			go func() { over <- k.Login(func() error { close(begun); <-answer; return nil }) }()
			<-begun
			return soft.New(), nil
		})
		if exit.Code(err) == exit.Secret {
			break
		}
		left, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		close(answer)
		if err := <-over; err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, left, 0o600); err != nil { // as it was then
			t.Fatal(err)
		}
	}
	if starts != 4 {
		t.Errorf("the PIN was given at %d starts", starts)
	}
}

// TestRefusalsUnwritable has a refused PIN that cannot be noted: the process does not end, since the
// next one would give it again, until it can be noted or is to end.
func TestRefusalsUnwritable(t *testing.T) {
	ends := make(chan struct{})
	pauses := 0
	k := &config.Keystore{PIN: "file:pin", Isolate: true, Refusals: filepath.Join(t.TempDir(), "refused"), Ends: ends}
	k.Pauses = func(d time.Duration) {
		if pauses++; d <= 0 {
			t.Errorf("a pause of %v", d)
		}
		close(ends)
	}
	_, err := withinTries(k, nil, func() (Store, error) { return nil, errors.Join(keystore.ErrPIN, os.Mkdir(k.Refusals, 0o700)) })
	if pauses != 1 || !errors.Is(err, keystore.ErrPIN) || exit.Code(err) != exit.Secret {
		t.Errorf("%d pauses, exit code %d, %v", pauses, exit.Code(err), err)
	}
}
