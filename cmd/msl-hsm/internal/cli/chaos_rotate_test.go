//go:build !noetcd

package cli

import (
	"context"
	"sync"
	"testing"
	"time"
)

// TestRotateUnderLoad has devices send non-replayable messages while the keys of a server
// on a token are rotated twice, and older versions are retired. None fails.
func TestRotateUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t)
	t.Parallel()
	s := newTokenSite(t, "msl-hsm")
	s.addServer(0)
	s.balance()
	s.config("commands.yaml", "dev/server.db")
	s.register("dev/server.db", deviceNames(3))
	s.servers[0].start()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wait sync.WaitGroup
	defer wait.Wait()
	for _, d := range s.devices {
		wait.Go(func() { d.sendAll(ctx) })
	}
	for range 2 {
		s.further(10)
		s.mustRun("key", "rotate")
		s.further(10)
		s.mustRun("key", "retire", "--yes")
	}
	s.further(20)
	stop()
	wait.Wait()
	s.finish()
}

// sendAll sends messages until ctx ends, of which none may fail.
func (d *device) sendAll(ctx context.Context) {
	defer d.http.CloseIdleConnections()
	for n := 1; ctx.Err() == nil; n++ {
		failed := d.site.failed.Load()
		rest(ctx, 60*time.Millisecond)
		d.send(ctx, 10*n+1) // of which nobody posts copies
		if ctx.Err() == nil && d.site.failed.Load() != failed {
			d.t.Errorf("message %d of %s failed", n, d.name)
		}
	}
}
