package msl_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A message that waits for memory keeps no other one from beginning a session.
func TestWaitForMemoryTakesNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, newStore(t))
		serve := func(message []byte, handle msl.Handler) error {
			return n.server.Serve(context.Background(), "test", bytes.NewReader(message), io.Discard, handle)
		}
		var first, established []byte
		c := n.pskClient("device")
		n.intercept = func(m []byte) []byte {
			if established = bytes.Clone(m); first == nil {
				first = established
			}
			return m
		}
		for range 2 {
			if _, _, err := send(t, c, &msl.Request{RequestTokens: true, Body: msl.BytesBody([]byte("x"))}); err != nil {
				t.Fatal(err)
			}
		}
		n.server.TakeTurns()
		blocked := make(chan struct{})
		go serve(established, func(context.Context, *msl.ResponseWriter, *msl.Message) error {
			<-blocked
			return nil
		})
		time.Sleep(2 * time.Second) // while it is under way, the others take turns
		free := n.server.UseUpMemory()
		go serve(fmt.Appendf(nil, `{"padding":"%s",%s`, strings.Repeat("x", 20<<10), first[1:]), echo)
		synctest.Wait()
		start := time.Now()
		err := serve(first, echo)
		if took := time.Since(start); err != nil || took > time.Second {
			t.Errorf("another message: %v after %v", err, took)
		}
		free()
		close(blocked)
		time.Sleep(time.Minute)
	})
}
