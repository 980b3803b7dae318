package agent

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
)

// BenchmarkHTTP asks a service through agent and gateway, and through a reverse proxy of
// the standard library.
func BenchmarkHTTP(b *testing.B) {
	answer := bytes.Repeat([]byte("x"), 1<<20)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		size := 0
		fmt.Sscan(r.URL.Query().Get("size"), &size)
		w.Write(answer[:size])
	}))
	defer service.Close()
	for _, size := range []int{5, 1 << 20} {
		b.Run(fmt.Sprint("proxy/", size), func(b *testing.B) {
			at, _ := url.Parse(service.URL)
			proxy := httptest.NewServer(httputil.NewSingleHostReverseProxy(at))
			defer proxy.Close()
			ask(b, proxy.Client(), proxy.URL, size)
		})
		b.Run(fmt.Sprint("agent/", size), func(b *testing.B) {
			n := newNetwork(b).carriesTo(service.URL).serve()
			ask(b, n.web, n.base, size)
		})
	}
}

func ask(b *testing.B, client *http.Client, base string, size int) {
	b.SetBytes(int64(size))
	for b.Loop() {
		r, err := client.Get(fmt.Sprint(base, "?size=", size))
		if err != nil {
			b.Fatal(err)
		}
		got, err := io.Copy(io.Discard, r.Body)
		r.Body.Close()
		if got != int64(size) || err != nil {
			b.Fatal(got, err)
		}
	}
}
