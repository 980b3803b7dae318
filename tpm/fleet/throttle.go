package fleet

import (
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A throttle limits the messages of all sources together. A source that sends many has only what
// others leave: one that sends nothing but garbage must not keep the rest from enrolling.
type throttle struct {
	all  *rate.Limiter
	few  int     // messages in a second that any source may send
	kept float64 // of a burst, for sources that send no more

	mu    sync.Mutex
	since time.Time      // when this second began
	sent  map[string]int // in this second, by source
}

func newThrottle(perSecond float64) *throttle {
	kept := int(perSecond)
	return &throttle{all: rate.NewLimiter(rate.Limit(perSecond), int(2*perSecond)+1+kept), few: int(perSecond/10) + 1, kept: float64(kept), sent: map[string]int{}}
}

// allow reports whether a source may send a message now.
func (t *throttle) allow(source string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.since) >= time.Second {
		t.since = now
		clear(t.sent)
	}
	if t.sent[source] >= t.few && t.all.TokensAt(now) < t.kept+1 || !t.all.AllowN(now, 1) {
		return false
	}
	t.sent[source]++ // so there are no more sources than messages
	return true
}

// before refuses messages beyond the limit.
func (t *throttle) before(source func(*http.Request) string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if from := source(r); !t.allow(from, time.Now()) {
			mslhttp.TurnAway(r.Context(), mslhttp.TooManyRequests, from)
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}
