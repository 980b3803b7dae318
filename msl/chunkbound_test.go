package msl_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestChunkBounds writes answers that end near the end of a chunk of 64 KiB, in one
// piece and in several, with writes of nothing and flushes between them.
func TestChunkBounds(t *testing.T) {
	skipWithRace(t)
	n := softNetwork(t)
	c := n.pskClient("device")
	mustSend(t, c, secret("get tokens"), 2)
	for _, size := range []int{1<<16 - 1, 1 << 16, 1<<16 + 1, 1 << 17, 1<<17 + 1} {
		for _, piece := range []int{1000, 1 << 15, 1 << 16, 1 << 20} {
			for _, flush := range []bool{false, true} {
				t.Run(fmt.Sprint(size, piece, flush), func(t *testing.T) {
					data := random(size)
					n.handler = func(_ context.Context, w *msl.ResponseWriter, _ *msl.Message) error {
						for rest := data; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
							w.Write(rest[:min(piece, len(rest))])
							w.Write(nil)
							if flush {
								w.Flush()
							}
						}
						return nil
					}
					if _, got, err := send(t, c, secret("")); err != nil || got != string(data) {
						t.Errorf("got %d of %d bytes, %v", len(got), size, err)
					}
				})
			}
		}
	}
}
