//go:build cgo && !nopkcs11

package cli

import (
	"runtime"
	"testing"
	"time"
)

// BenchmarkIdleSession is the memory of the process for one remembered session
// that is not in use, beside what the module takes for its keys.
func BenchmarkIdleSession(b *testing.B) {
	for _, place := range benchStores {
		b.Run(place.name, func(b *testing.B) {
			n := newBench(b, place.open(b))
			client := n.device("PSK")
			echo(b, client(), true)
			before := heap()
			for range b.N {
				c := client()
				echo(b, c, true)
				c.Close()
			}
			b.ReportMetric(float64(heap()-before)/float64(b.N), "B/session")
			runtime.KeepAlive(n)
		})
	}
}

func heap() int64 {
	runtime.GC()
	time.Sleep(time.Millisecond) // finalizers
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
