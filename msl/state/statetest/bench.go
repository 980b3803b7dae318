package statetest

import (
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkIDs measures how many non-replayable ids a server accepts from 1, 16 and 64
// clients with a token each, each waiting for its turn.
func BenchmarkIDs(b *testing.B, open Open) {
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(clients, " clients"), func(b *testing.B) {
			s, own := open(b), rand.Text() // tokens that no earlier run used
			defer s.Close()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wait sync.WaitGroup
			b.ResetTimer()
			for client := range clients {
				wait.Go(func() {
					for id := int64(1); left.Add(-1) >= 0; id++ {
						if err := s.AcceptID(b.Context(), fmt.Sprint(own, client), 1, id); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wait.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ids/s")
		})
	}
}
