package hsm

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestAlternates has every second recovery fail: the log has few lines. That the PIN is refused in the
// end, or the token is another one, is one of them, and that the store was closed is none.
func TestAlternates(t *testing.T) {
	var log strings.Builder
	r := &recovery{connection: &connection{log: slog.New(slog.NewTextHandler(&log, nil))}}
	for range 50 {
		r.tell(errors.New("still away"))
		r.tell(nil)
	}
	if lost, back := strings.Count(log.String(), "device lost"), strings.Count(log.String(), "device back"); lost != 2 || back != 1 {
		t.Errorf("lost %d times and back %d times:\n%s", lost, back, &log)
	}
	serial := "1"
	r.access.serial.Store(&serial)
	for _, lasting := range []error{fmt.Errorf("C_Login: CKR_PIN_INCORRECT: %w", keystore.ErrPIN), r.access.checkSame(tokenInfo{Serial: "2"})} {
		log.Reset()
		r.tell(errors.New("still away"))
		for range 50 {
			r.tell(errClosed)
			r.tell(lasting)
		}
		if strings.Count(log.String(), "device lost") != 1 || !strings.Contains(log.String(), lasting.Error()[:20]) {
			t.Errorf("of %v: %q", lasting, log.String())
		}
	}
	r.lost.Stop()
	closed := &recovery{connection: r.connection}
	log.Reset()
	if closed.tell(errClosed); strings.Contains(log.String(), "closed") {
		t.Errorf("of a store that was closed: %q", log.String())
	}
}

// TestPauses has recoveries fail: however long a device was away, the next try is not far.
// Those that work are spaced.
func TestPauses(t *testing.T) {
	r, now := &recovery{connection: &connection{}, budget: rate.NewLimiter(rate.Every(spacing), burst)}, time.Now()
	for i := range 20 {
		r.note(now, errors.New("still away"))
		if want := min(firstPause<<min(i, 10), longestPause); r.pause != want || r.due(now.Add(want-1)) || !r.due(now.Add(want)) {
			t.Errorf("failure %d is followed by a pause of %v, want %v", i+1, r.pause, want)
		}
		now = now.Add(r.pause)
	}
	r.access.unclear.Store(8)
	r.note(now, keystore.Unclear(errors.New("away, or the PIN is wrong")))
	if wait := keystore.PINPause(8); r.due(now.Add(wait-1)) || !r.due(now.Add(wait)) {
		t.Errorf("a PIN that got no clear answer eight times is not given again after %v", wait)
	}
	r.access.unclear.Store(0)
	if now = now.Add(longestPause); !r.due(now) {
		t.Error("another PIN has to wait")
	}
	for range burst {
		if !r.due(now) {
			t.Error("a recovery is not due, although few worked")
		}
		r.note(now, nil)
	}
	if r.due(now) || !r.due(now.Add(spacing)) {
		t.Error("many recoveries that worked are not spaced")
	}
}
