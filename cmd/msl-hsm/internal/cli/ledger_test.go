//go:build linux && cgo && !nopkcs11

package cli

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A ledger is the service behind a server, which notes the messages that it processes, and
// what devices note of their answers.
type ledger struct {
	mu        sync.Mutex
	processed map[string]int // messages, by their numbers
	answered  map[string]bool
	refusals  map[string]int  // messages that are not, by what the device was told
	again     map[string]bool // those that the device is told to send again
	sessions  int             // that were begun anew

	since   time.Time         // of what follows
	begun   map[int]time.Time // when a device began the last message that was answered
	answers []time.Time       // when they came
	refused int
}

func newLedger() *ledger {
	return &ledger{processed: map[string]int{}, answered: map[string]bool{}, refusals: map[string]int{}, again: map[string]bool{}, begun: map[int]time.Time{}}
}

// ServeHTTP processes a message.
func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	number, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	l.mu.Lock()
	l.processed[string(number)]++
	l.mu.Unlock()
	w.Write(number)
}

// note notes what became of a message.
func (l *ledger) note(t *testing.T, device int, number string, began time.Time, keyExchange bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.answered[number] = true
		l.begun[device] = began
		l.answers = append(l.answers, time.Now())
	case sentAgain(err):
		l.again[number] = true
		l.refused++
		l.refusals[err.Error()]++
	case answerLost(err):
		l.refused++
		l.refusals[err.Error()]++
	default:
		t.Errorf("message %s, after %v: %v", number, time.Since(began), err)
	}
	if keyExchange {
		l.sessions++
	}
}

// sentAgain reports whether a device is only told to send its message again.
func sentAgain(err error) bool {
	var peer *msl.PeerError
	return errors.As(err, &peer) && peer.Response == msl.TransientFailure || hasStatus(err, http.StatusServiceUnavailable)
}

// answerLost reports whether a device is told that its message was processed, and that
// there is no token left to protect the answer. See [msl.ErrAnswerLost].
func answerLost(err error) bool { return hasStatus(err, http.StatusInternalServerError) }

func hasStatus(err error, status int) bool {
	var e *mslhttp.StatusError
	return errors.As(err, &e) && e.Status == status
}

// restart begins a new count of answers.
func (l *ledger) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since, l.answers, l.refused = time.Now(), nil, 0
}

// firstAfter returns how long after a time the first answer came, or 0 if none did.
func (l *ledger) firstAfter(when time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.answers {
		if a.After(when) {
			return a.Sub(when)
		}
	}
	return 0
}

// servedAfter counts the devices that began a message after a time, and have the answer.
func (l *ledger) servedAfter(when time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, began := range l.begun {
		if began.After(when) {
			n++
		}
	}
	return n
}

// sum returns the longest time without an answer, and how many messages have to be sent
// again.
func (l *ledger) sum() (silence time.Duration, refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.since
	for _, a := range l.answers {
		silence, last = max(silence, a.Sub(last)), a
	}
	return silence, l.refused
}

// judge checks that what was answered was processed once, what is to be sent again was
// not, and nothing was twice.
func (l *ledger) judge(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for number := range l.answered {
		if n := l.processed[number]; n != 1 {
			t.Errorf("message %s was answered, and processed %d times", number, n)
		}
	}
	for number := range l.again {
		if n := l.processed[number]; n != 0 {
			t.Errorf("message %s is to be sent again, and was processed %d times", number, n)
		}
	}
	for number, n := range l.processed {
		if n > 1 {
			t.Errorf("message %s was processed %d times", number, n)
		}
	}
	if l.sessions > 0 {
		t.Errorf("%d sessions were begun anew", l.sessions)
	}
	t.Logf("%d messages were answered, %d processed", len(l.answered), len(l.processed))
	for why, n := range l.refusals {
		t.Logf("%d times: %s", n, why)
	}
}
