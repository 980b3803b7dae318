//go:build cgo && !nopkcs11

package cli

import (
	"bytes"
	"context"
	"runtime/debug"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
	"github.com/msl-hsm/msl-hsm/internal/floortest"
	"github.com/msl-hsm/msl-hsm/msl"
)

// BenchmarkServerAlone compares a server that gets recorded messages again and again with
// the calls of the module that they need. A client in between would take the processor's
// caches away from the server, and not from its floor.
func BenchmarkServerAlone(b *testing.B) {
	floor := floortest.Start(b)
	n := newBench(b, openSoftHSM(b))
	defer debug.SetGCPercent(debug.SetGCPercent(serverside.GCPercent)) // as serve does
	for _, o := range []struct {
		sequence, scheme string // of scripts/floor.c, and of the client
		later            bool   // not a client's first messages
	}{{"echo", "PSK", true}, {"PSK", "PSK", false}, {"RSA", "RSA", false}} {
		handled := 0
		n.handle = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			handled++
			return sendBack(ctx, w, m)
		}
		messages := n.record(n.deviceNamed(o.sequence, o.scheme)(), o.later)
		b.Run(o.sequence, func(b *testing.B) {
			floor.Compare(b, o.sequence, func(runs int) time.Duration {
				handled = 0
				start := time.Now()
				for range runs {
					n.replay(b, messages)
				}
				took := time.Since(start)
				if handled != runs {
					b.Fatalf("%d of %d messages were refused", runs-handled, runs)
				}
				return took
			})
		})
	}
}

// record returns what a client sends to have its first message answered, or a later one.
func (b *bench) record(c *msl.Client, later bool) [][]byte {
	defer c.Close()
	r := &recorder{bench: b}
	c.Transport = r
	echo(b, c, true)
	if later {
		r.sent = nil
		echo(b, c, false)
	}
	return r.sent
}

func (b *bench) replay(t testing.TB, messages [][]byte) {
	answer := buffers.Get().(*buffer)
	defer answer.Close()
	for _, m := range messages {
		answer.Reset()
		if err := b.server.Serve(context.Background(), "bench", bytes.NewReader(m), answer, b.handle); err != nil {
			t.Fatal(err)
		}
	}
}
