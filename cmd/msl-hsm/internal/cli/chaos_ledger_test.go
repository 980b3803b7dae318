package cli

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A chaosLedger is the history of numbered requests: when each was begun, whether its sender got
// the answer, and how often the service behind the servers got each of its messages. It has
// several if a server asked for another one.
type chaosLedger struct {
	staleness time.Duration

	mu      sync.Mutex
	sent    map[string]*sending
	revoked map[string]time.Time // when a revocation was acknowledged, by device; zero while it is under way
	got     int                  // messages acknowledged
	changed chan struct{}        // closed when got changes
}

// A sending is a request of the ledger.
type sending struct {
	device       string
	begun        time.Time
	copied       bool  // others posted its messages, too
	arrivals     []int // of each message
	acknowledged bool
}

func newChaosLedger(staleness time.Duration) *chaosLedger {
	return &chaosLedger{staleness: staleness, sent: map[string]*sending{}, revoked: map[string]time.Time{}, changed: make(chan struct{})}
}

// ServeHTTP is the service: it notes the message, and sends it back.
func (l *chaosLedger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !l.arrive(string(text), r.Header.Get("Msl-Entity")) {
		http.Error(w, "not sent by this device", http.StatusBadRequest)
		return
	}
	w.Write(text)
}

func (l *chaosLedger) arrive(text, device string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	name, number, _ := strings.Cut(text, ", ")
	s := l.sent[name]
	i, err := strconv.Atoi(number)
	if s == nil || s.device != device || err != nil || i >= len(s.arrivals) {
		return false
	}
	s.arrivals[i]++
	return true
}

// begin notes the next request of a device, and returns its name.
func (l *chaosLedger) begin(device string, n int, copied bool) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := fmt.Sprint(device, " sends ", n)
	l.sent[name] = &sending{device: device, begun: time.Now(), copied: copied}
	return name
}

// message returns the data of the next message of a request.
func (l *chaosLedger) message(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sent[name]
	s.arrivals = append(s.arrivals, 0)
	return fmt.Sprint(name, ", ", len(s.arrivals)-1)
}

func (l *chaosLedger) acknowledge(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[name].acknowledged = true
	l.got++
	close(l.changed)
	l.changed = make(chan struct{})
}

// revoke notes that everybody may rely on a revocation from a time on, or with the zero
// time that one begins.
func (l *chaosLedger) revoke(device string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revoked[device] = at
}

// isRevoked tells whether servers may refuse a device.
func (l *chaosLedger) isRevoked(device string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, yes := l.revoked[device]
	return yes
}

// state returns how many messages were acknowledged, and what is closed when it is more.
func (l *chaosLedger) state() (int, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.got, l.changed
}

// check reports what must not be. Messages do not depend on each other, so the history is
// linearizable if each is taken at most once. Of a request that nobody copied only one
// message is.
func (l *chaosLedger) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(l.sent)) {
		s := l.sent[name]
		taken := 0
		for _, n := range s.arrivals {
			taken += n
		}
		switch {
		case slices.ContainsFunc(s.arrivals, func(n int) bool { return n > 1 }), taken > 1 && !s.copied:
			t.Errorf("%q: its messages were taken %v times", name, s.arrivals)
		case s.acknowledged && taken == 0:
			t.Errorf("%q was answered, and not taken", name)
		}
		if at, ok := l.revoked[s.device]; ok && !at.IsZero() && taken > 0 && s.begun.Sub(at) > l.staleness {
			t.Errorf("%q was begun %v after the revocation, and taken", name, s.begun.Sub(at))
		}
	}
}
