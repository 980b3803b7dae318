//go:build cgo && !nopkcs11

package keys

import (
	"context"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// MakeWay looks once a minute whether a token has become slow, as when an HSM far away takes the
// place of a near one, and raises GOMAXPROCS then, as opening a slow token does. It does so until
// the returned function is called.
func MakeWay(s Store) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		every := time.NewTicker(time.Minute)
		defer every.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-every.C:
				makeWayNow(s)
			}
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// makeWayNow is makeWay for each token of a store.
func makeWayNow(s Store) {
	eachToken(s, func(_ string, device keystore.Store) {
		if device, ok := device.(*hsm.Store); ok {
			makeWay(device.Stats().Latency)
		}
	})
}
