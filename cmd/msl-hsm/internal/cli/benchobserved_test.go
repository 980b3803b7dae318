//go:build cgo && !nopkcs11

package cli

import (
	"context"
	"math"
	"math/rand/v2"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/metrics"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/statuspage"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A watcher is told of messages and of operations of the key store.
type watcher struct {
	name   string
	report func(context.Context, msl.Served)
	calls  func(keystore.Call)
	more   []float64 // microseconds of a processor for a message above those of nobody, by round
}

// BenchmarkObserved is what it costs to watch a server: the processor time of an echo of 1
// KiB, client and server together, watched by nobody, by each watcher, and by metrics and
// access log together. The watchers take turns at one server, in slices of 20 messages and
// in another order in each round: two equal servers differ by more than a watcher costs. The
// result is the median of the differences within the rounds, with the half of its interval
// of 95 percent. The second nobody shows what is noise. -benchtime 500x makes 500 rounds.
func BenchmarkObserved(b *testing.B) {
	for _, place := range benchStores[:2] {
		b.Run(place.name, func(b *testing.B) {
			defer debug.SetGCPercent(debug.SetGCPercent(serverside.GCPercent)) // as serve does
			var calls atomic.Pointer[func(keystore.Call)]
			n := newBench(b, observedStore(b, place.name, func(c keystore.Call) { (*calls.Load())(c) }, &calls))
			all, alone := watchers(b, n), []float64{}
			c := n.device("PSK")()
			defer c.Close()
			echo(b, c, true)
			for range b.N {
				cost := make([]float64, len(all))
				for _, i := range rand.Perm(len(all)) {
					n.server.Report = all[i].report
					calls.Store(&all[i].calls)
					cost[i] = slice(b, c)
				}
				alone = append(alone, cost[0])
				for i := range all {
					all[i].more = append(all[i].more, cost[i]-cost[0])
				}
			}
			whole, _ := median(alone)
			b.ReportMetric(whole, "us/msg")
			for _, w := range all[1:] {
				more, margin := median(w.more)
				b.ReportMetric(100*more/whole, w.name+"-%")
				b.ReportMetric(100*margin/whole, w.name+"-margin-%")
			}
		})
	}
}

// slice is the microseconds of a processor that a message takes in a few of them.
func slice(b *testing.B, c *msl.Client) float64 {
	const messages = 20
	before := processClockNow(b)
	for range messages {
		echo(b, c, false)
	}
	return float64((processClockNow(b) - before).Nanoseconds()) / 1000 / messages
}

// processClockNow is the processor time of this process, finer than that of getrusage(2).
func processClockNow(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// median also returns half of the interval in which the true one is with 95 percent.
func median(of []float64) (middle, margin float64) {
	sorted := slices.Sorted(slices.Values(of))
	n := len(sorted)
	apart := min(int(math.Ceil(0.98*math.Sqrt(float64(n)))), n/2)
	return sorted[n/2], (sorted[min(n/2+apart, n-1)] - sorted[n/2-apart]) / 2
}

// watchers are those of a server: first nobody, twice.
func watchers(b *testing.B, n *bench) []watcher {
	counts, page := metrics.New("v1", "abc"), &statuspage.History{}
	lines, audit := accessLogTo(b), auditTo(b, n)
	counted := func(_ context.Context, v msl.Served) { counts.Message(v) }
	both := func(ctx context.Context, v msl.Served) { counts.Message(v); lines(ctx, v) }
	seen := func(_ context.Context, v msl.Served) { page.Message(&v) }
	nothing := func(keystore.Call) {}
	return []watcher{
		{"off", nil, nothing, nil}, {"again", nil, nothing, nil}, {"metrics", counted, counts.Call, nil}, {"access-log", lines, nothing, nil},
		{"page", seen, page.Call, nil}, {"both", both, counts.Call, nil}, {"audit", audit, nothing, nil},
	}
}

// observedStore opens a store that tells of its calls.
func observedStore(b *testing.B, place string, told func(keystore.Call), calls *atomic.Pointer[func(keystore.Call)]) benchStore {
	nothing := func(keystore.Call) {}
	calls.Store(&nothing)
	if place == "soft" {
		return benchStores[0].open(b)
	}
	token := newBenchToken(b)
	s, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN, Sessions: 4, Calls: told})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// accessLogTo returns what writes an access log.
func accessLogTo(b *testing.B) func(context.Context, msl.Served) {
	write, end, err := serverside.AccessLogIn(filepath.Join(b.TempDir(), "access.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { end() })
	return write
}
