//go:build cgo && !nopkcs11

package cli

import (
	"runtime/debug"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
	"github.com/msl-hsm/msl-hsm/internal/floortest"
)

// BenchmarkServerAlone compares the time that messages take in a server, without their
// clients, with the calls of the module that they need.
func BenchmarkServerAlone(b *testing.B) {
	n := newBench(b, openSoftHSM(b))
	floor := floortest.Start(b)
	known, psk, rsa := n.deviceNamed("known", "PSK")(), n.deviceNamed("new", "PSK"), n.deviceNamed("pair", "RSA")
	defer known.Close()
	echo(b, known, true)
	defer debug.SetGCPercent(debug.SetGCPercent(serverside.GCPercent)) // as serve does
	for _, o := range []struct {
		sequence string // of scripts/floor.c
		run      func()
	}{
		{"echo", func() { echo(b, known, false) }},
		{"PSK", func() { c := psk(); defer c.Close(); echo(b, c, true) }},
		{"RSA", func() { c := rsa(); defer c.Close(); echo(b, c, true) }},
	} {
		b.Run(o.sequence, func(b *testing.B) {
			floor.Compare(b, o.sequence, func(runs int) time.Duration {
				n.serving.Store(0)
				for range runs {
					o.run()
				}
				return time.Duration(n.serving.Load())
			})
		})
	}
}
