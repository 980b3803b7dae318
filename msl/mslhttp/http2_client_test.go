package mslhttp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
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

// TestHTTP2Leaving has servers that end the first connections, or all, before they carry a
// request. net/http may make a connection more for each.
func TestHTTP2Leaving(t *testing.T) {
	a := newAuthority(t)
	for _, c := range []struct {
		leaving, least int32
		err            error
	}{{1, 2, nil}, {2, 3, nil}, {1000, 3, errGoneAway}} {
		var made atomic.Int32
		addr := startLeaving(t, a, func() bool { return made.Add(1) <= c.leaving })
		client := http2Client(t, a, true)
		if _, err := fetch(client, addr); !errors.Is(err, c.err) || made.Load() < c.least || made.Load() > http2Dials {
			t.Errorf("%d leaving: %v, %d connections, want %d to %d", c.leaving, err, made.Load(), c.least, http2Dials)
		}
		made.Store(0)
		if _, err := fetch(client, addr); !errors.Is(err, c.err) {
			t.Errorf("%d leaving, again: %v", c.leaving, err)
		}
	}
}

// startLeaving serves HTTP/2, but sends GOAWAY at once on a connection for which leaves
// returns true.
func startLeaving(t *testing.T, a *authority, leaves func() bool) string {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&TLSServer{HTTP2: true, Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}}).Listen(raw)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(versionHandler), ConnContext: TLSContext}
	AllowHTTP2(server)
	ended := make(chan struct{})
	go func() { server.Serve(leaving{l, leaves}); close(ended) }()
	t.Cleanup(func() { server.Close(); <-ended })
	return raw.Addr().String()
}

type leaving struct {
	net.Listener
	leaves func() bool
}

func (l leaving) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || !l.leaves() {
			return conn, err
		}
		go func() {
			defer conn.Close()
			io.WriteString(conn, "\x00\x00\x00\x04\x00\x00\x00\x00\x00"+ // SETTINGS
				"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00") // GOAWAY
			conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)) // net/http keeps some open
			io.Copy(io.Discard, conn)
		}()
	}
}
