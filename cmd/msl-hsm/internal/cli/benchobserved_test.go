//go:build cgo && !nopkcs11

package cli

import (
	"context"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/metrics"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/statuspage"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// An observed server is one of those that BenchmarkObserved compares.
type observed struct {
	name   string
	client *msl.Client
	cost   []float64 // microseconds of a processor for a message, by round
}

// BenchmarkObserved is what it costs to watch a server: the processor time of an echo of 1
// KiB, client and server together, with everything off, with each thing alone, and with all
// but the audit log. The servers take turns within the run, since machines are noisy; a
// percentage is the median of those within a round. -benchtime 20x makes 20 rounds.
func BenchmarkObserved(b *testing.B) {
	const messages = 200
	for _, place := range benchStores[:2] {
		b.Run(place.name, func(b *testing.B) {
			defer debug.SetGCPercent(debug.SetGCPercent(serverside.GCPercent)) // as serve does
			all := observedServers(b, place.name)
			for range b.N {
				for i := range all {
					before := processorTime(b)
					for range messages {
						echo(b, all[i].client, false)
					}
					all[i].cost = append(all[i].cost, float64((processorTime(b)-before).Nanoseconds())/1000/messages)
				}
			}
			for _, o := range all {
				more := make([]float64, len(o.cost))
				for i := range more {
					more[i] = 100 * (o.cost[i]/all[0].cost[i] - 1)
				}
				b.ReportMetric(median(o.cost), o.name+"-us/msg")
				b.ReportMetric(median(more), o.name+"-%")
			}
		})
	}
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

// observedServers makes the servers. Each has a session with its client.
func observedServers(b *testing.B, place string) (all []observed) {
	counts, page := metrics.New("v1", "abc"), &statuspage.History{}
	lines := accessLogTo(b)
	counted := func(_ context.Context, v msl.Served) { counts.Message(v) }
	both := func(ctx context.Context, v msl.Served) { counts.Message(v); lines(ctx, v) }
	seen := func(_ context.Context, v msl.Served) { page.Message(&v) }
	for _, kind := range []struct {
		name   string
		report func(context.Context, msl.Served)
		calls  func(keystore.Call)
	}{
		{"off", nil, nil}, {"again", nil, nil}, {"metrics", counted, counts.Call}, {"access-log", lines, nil}, {"page", seen, page.Call},
		{"both", both, counts.Call}, {"audit", nil, nil},
	} {
		n := newBench(b, observedStore(b, place, kind.calls))
		n.server.Report = kind.report
		if kind.name == "audit" {
			n.server.Report = auditTo(b, n)
		}
		c := n.device("PSK")()
		b.Cleanup(func() { c.Close() })
		echo(b, c, true)
		all = append(all, observed{name: kind.name, client: c})
	}
	return all
}

// observedStore opens a store of its own, which tells of its calls.
func observedStore(b *testing.B, place string, calls func(keystore.Call)) benchStore {
	if place == "soft" {
		return benchStores[0].open(b)
	}
	token := newBenchToken(b)
	s, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN, Sessions: 4, Calls: calls})
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
