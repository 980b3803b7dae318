//go:build cgo && !nopkcs11

package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A recorder keeps the messages that went through a bench.
type recorder struct {
	*bench
	sent [][]byte
}

func (r *recorder) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	return r.bench.RoundTrip(ctx, func(w io.Writer) error {
		var message bytes.Buffer
		err := write(io.MultiWriter(w, &message))
		r.sent = append(r.sent, message.Bytes())
		return err
	})
}

// TestFloodOfHandshakes sends a recorded first message again and again, and compares what
// devices with a session get done meanwhile with what they get done without it. The two are
// measured in turns, so that what else the machine does is the same for both. Two
// processors are shared by all: the everyday bound leaves room for other programs.
func TestFloodOfHandshakes(t *testing.T) { floodWithHandshakes(t, openSoftHSM) }

// TestFloodOfHandshakesIsolated is the same with the module in a process of its own.
func TestFloodOfHandshakesIsolated(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("takes half a minute: set MSL_SOAK=1")
	}
	floodWithHandshakes(t, openIsolated)
}

func floodWithHandshakes(t *testing.T, open func(testing.TB) benchStore) {
	if testing.Short() || raceDetector {
		t.Skip("takes seconds, and measures time")
	}
	least, turns := 0.6, 1
	if os.Getenv("MSL_SOAK") != "" {
		least, turns = 0.8, 60
	}
	b := newBench(t, open(t))
	flood := floodOf(t, b)
	var echoes atomic.Int64
	defer establish(t, b, &echoes)()
	var alone, flooded float64
	var refused atomic.Int64
	n := 0
	for ; moreTurns(n, turns, flooded/max(alone, 1) < least); n++ {
		alone += during(&echoes, func() { time.Sleep(250 * time.Millisecond) })
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		flooded += during(&echoes, func() { refused.Add(flood(ctx)) })
		cancel()
	}
	ratio := flooded / max(alone, 1) // 0 / 0 is less than no bound
	t.Logf("%.0f messages a second alone, %.0f with a flood of handshakes, which had %d answers: ratio %.2f", alone/float64(n), flooded/float64(n), refused.Load(), ratio)
	if ratio < least {
		t.Errorf("devices with a session get %.2f of their throughput, want %.2f", ratio, least)
	}
}

// moreTurns reports whether to measure once more: other tests run at the same time, so one that
// falls short so far gets many more turns.
func moreTurns(n, turns int, short bool) bool { return n < turns || short && n < 3*turns+15 }

// during returns what happens meanwhile in a second: a flood ends later than requested.
func during(n *atomic.Int64, what func()) float64 {
	before, start := n.Load(), time.Now()
	what()
	return float64(n.Load()-before) / time.Since(start).Seconds()
}

// establish has four devices send messages in their sessions, until the function that it
// returns is called.
func establish(t *testing.T, b *bench, echoes *atomic.Int64) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var devices sync.WaitGroup
	newClient := b.device("PSK")
	for range 4 {
		c := newClient()
		echo(b, c, true)
		devices.Go(func() {
			defer c.Close()
			for ctx.Err() == nil {
				echo(b, c, false)
				echoes.Add(1)
			}
		})
	}
	return func() {
		cancel()
		devices.Wait()
	}
}

// floodOf returns what sends a handshake again and again, on 16 connections, and counts
// the answers.
func floodOf(t *testing.T, b *bench) func(context.Context) int64 {
	r := &recorder{bench: b}
	c := b.deviceNamed("flooder", "PSK")()
	c.Transport = r
	defer c.Close()
	echo(b, c, true)
	return func(ctx context.Context) int64 {
		var connections sync.WaitGroup
		var answers atomic.Int64
		for range 16 {
			connections.Go(func() {
				for ctx.Err() == nil {
					if b.server.Serve(ctx, "flooder", bytes.NewReader(r.sent[len(r.sent)-1]), io.Discard, sendBack) == nil {
						answers.Add(1)
					}
				}
			})
		}
		connections.Wait()
		return answers.Load()
	}
}
