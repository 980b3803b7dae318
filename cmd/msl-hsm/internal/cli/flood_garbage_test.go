//go:build cgo && !nopkcs11

package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// garbage has pieces that are not messages, each in its own way.
func garbage(recorded []byte) [][]byte {
	return [][]byte{
		[]byte("GET / HTTP/1.0\r\n\r\n"),
		bytes.Repeat([]byte{0xff}, 4096),
		[]byte(strings.Repeat("[", 4096)),
		[]byte(`{"entityauthdata":{"scheme":"NOBODY","authdata":{}},"headerdata":"AAAA","signature":"AAAA"}`),
		[]byte(`{"headerdata":"` + strings.Repeat("A", 64<<10) + `"}`),
		recorded[:len(recorded)/2],
		bytes.Replace(recorded, []byte(`"signature":"`), []byte(`"signature":"AAAA`), 1),
		bytes.Replace(recorded, []byte(`"headerdata":"`), []byte(`"headerdata":"AAAA`), 1),
	}
}

// TestFloodOfGarbage sends pieces on 64 connections that are not messages, and compares what devices
// with a session get done meanwhile with what they get done without it, in turns.
func TestFloodOfGarbage(t *testing.T) { floodWithGarbage(t, openSoftHSM) }

// TestFloodOfGarbageIsolated is the same with the module in a process of its own.
func TestFloodOfGarbageIsolated(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("takes a minute: set MSL_SOAK=1")
	}
	floodWithGarbage(t, openIsolated)
}

func floodWithGarbage(t *testing.T, open func(testing.TB) benchStore) {
	if testing.Short() || raceDetector {
		t.Skip("takes seconds, and measures time")
	}
	least, turns := 0.6, 1
	if os.Getenv("MSL_SOAK") != "" {
		least, turns = 0.8, 60
	}
	b := newBench(t, open(t))
	r := &recorder{bench: b}
	c := b.deviceNamed("flooder", "PSK")()
	c.Transport = r
	defer c.Close()
	echo(b, c, true)
	all := garbage(r.sent[len(r.sent)-1])
	var echoes, sent atomic.Int64
	defer establish(t, b, &echoes)()
	var alone, flooded float64
	n := 0
	for ; moreTurns(n, turns, flooded/max(alone, 1) < least); n++ {
		alone += during(&echoes, func() { time.Sleep(250 * time.Millisecond) })
		end := floodWith(t, b, all, &sent)
		time.Sleep(250 * time.Millisecond) // the first of each connection are there at once
		flooded += during(&echoes, func() { time.Sleep(250 * time.Millisecond) })
		end()
	}
	ratio := flooded / max(alone, 1) // 0 / 0 is less than no bound
	t.Logf("%.0f messages a second alone, %.0f with %d pieces of garbage: ratio %.2f", alone/float64(n), flooded/float64(n), sent.Load(), ratio)
	if ratio < least {
		t.Errorf("devices with a session get %.2f of their throughput, want %.2f", ratio, least)
	}
}

// floodWith sends garbage on 64 connections, until the function that it returns is called.
func floodWith(t *testing.T, b *bench, all [][]byte, sent *atomic.Int64) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var connections sync.WaitGroup
	for n := range 64 {
		connections.Go(func() {
			for i := n; ctx.Err() == nil; i++ {
				b.server.Serve(ctx, "flooder", bytes.NewReader(all[i%len(all)]), io.Discard, sendBack)
				sent.Add(1)
			}
		})
	}
	return func() {
		cancel()
		connections.Wait()
	}
}
