package balanced

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestTold loses a token that comes and goes, and refuses the PIN in the end: the log has that, too,
// and once.
func TestTold(t *testing.T) {
	var log strings.Builder
	s := &tokens{log: slog.New(slog.NewTextHandler(&log, nil)), done: make(chan struct{})}
	p := newPlace(Token{Name: "a"})
	var why error
	result := func(err error) {
		s.tell(p, why, err)
		why = err
	}
	for range 50 {
		result(errors.New("no network"))
		result(nil)
	}
	for range 50 {
		result(fmt.Errorf("C_Login: CKR_PIN_INCORRECT: %w", keystore.ErrPIN))
	}
	p.lost.Stop()
	for text, want := range map[string]int{"no network": 4, "token back": 3, "CKR_PIN_INCORRECT": 1} {
		if got := strings.Count(log.String(), text); got != want {
			t.Errorf("%q %d times, want %d:\n%s", text, got, want, &log)
		}
	}
}
