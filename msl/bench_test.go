package msl_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// BenchmarkEcho is a round trip of 1 KiB with a master token that the server
// remembers: client, server and transport in one process, all keys in memory.
func BenchmarkEcho(b *testing.B) {
	for _, compression := range []string{"", "GZIP"} {
		for _, goroutines := range []int{1, 2, 4} {
			name := fmt.Sprintf("soft/%d", goroutines)
			if compression != "" {
				name += "/" + compression
			}
			b.Run(name, func(b *testing.B) {
				store := soft.New()
				defer store.Close()
				benchmarkEcho(b, newNetwork(b, store), goroutines, compression)
			})
		}
	}
}

func benchmarkEcho(b *testing.B, n *network, goroutines int, compression string) {
	n.now = time.Now()
	c := n.pskClient("device")
	c.Capabilities = nil
	if compression != "" {
		c.Capabilities = &msl.Capabilities{Compression: []string{compression}}
	}
	body := bytes.Repeat([]byte("0123456789abcdef"), 64)
	if _, _, err := send(b, c, &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Body: msl.BytesBody(body)}); err != nil {
		b.Fatal(err)
	}
	req := &msl.Request{Encrypted: true, Authenticated: true, Body: msl.BytesBody(body)}
	b.ReportAllocs()
	b.ResetTimer()
	var wait sync.WaitGroup
	for g := range goroutines {
		wait.Go(func() {
			for i := g; i < b.N; i += goroutines {
				r, err := c.Do(context.Background(), req)
				if err != nil {
					b.Error(err)
					return
				}
				if got, err := io.Copy(io.Discard, r.Body); err != nil || got != int64(len(body)) {
					b.Errorf("answer of %d bytes: %v", got, err)
				}
				r.Body.Close()
			}
		})
	}
	wait.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
