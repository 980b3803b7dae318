package mslhttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestHTTP2ClosesBody has a server that answers before it has the request: the body is
// closed, or whoever writes it would wait forever.
func TestHTTP2ClosesBody(t *testing.T) {
	a := newAuthority(t)
	addr, _ := startHTTP2(t, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}}, &Connections{},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	client := http2Client(t, a, true)
	for name, ctx := range map[string]func() context.Context{
		"answered": t.Context,
		"given up": func() context.Context {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx
		},
	} {
		body, writer := io.Pipe()
		written := make(chan error)
		go func() {
			for {
				if _, err := writer.Write(make([]byte, 1024)); err != nil {
					written <- err
					return
				}
			}
		}()
		r, err := http.NewRequestWithContext(ctx(), http.MethodPost, "https://"+addr+"/", body)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := client.Transport.RoundTrip(r); err == nil {
			answer.Body.Close()
		} else if name == "answered" {
			t.Fatal(err)
		}
		select {
		case err := <-written:
			if !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the body is open", name)
			body.Close()
			<-written
		}
	}
}
