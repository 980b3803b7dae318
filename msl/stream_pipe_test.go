package msl_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// pipe is a connection without any buffer. A deadline guards against what hangs.
func pipe(t testing.TB) (net.Conn, net.Conn) {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	deadline := time.Now().Add(time.Minute)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	return a, b
}

// A pipeListener gives a server pipes, so that HTTP can run in a bubble of fake
// time, and without the buffers of the system.
type pipeListener struct {
	make  func() (net.Conn, net.Conn)
	conns chan net.Conn
	done  chan struct{}
}

func newPipeListener(pipe func() (net.Conn, net.Conn)) *pipeListener {
	return &pipeListener{pipe, make(chan net.Conn), make(chan struct{})}
}

// bufferedPipe holds some writes back each way, as a network does.
func bufferedPipe() (net.Conn, net.Conn) {
	a, innerA := net.Pipe()
	b, innerB := net.Pipe()
	go relay(innerA, innerB)
	go relay(innerB, innerA)
	return a, b
}

func relay(from, to net.Conn) {
	buffer := make(chan []byte, 16)
	go func() {
		for p := range buffer {
			if _, err := to.Write(p); err != nil {
				from.Close()
			}
		}
		to.Close()
	}()
	for p := make([]byte, 4096); ; {
		n, err := from.Read(p)
		if err != nil {
			close(buffer)
			return
		}
		buffer <- bytes.Clone(p[:n])
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := l.make()
	select {
	case l.conns <- b:
		return a, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// overPipedHTTP puts HTTP on pipes in front of c, all of it in memory.
func overPipedHTTP(t testing.TB, n *network, c *msl.Client) {
	l := newPipeListener(bufferedPipe)
	s := &http.Server{Handler: &mslhttp.Handler{Server: n.server, Handle: func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error { return n.handler(ctx, w, m) }}}
	go s.Serve(l)
	transport := &http.Transport{DialContext: l.dial}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.Close()
		time.Sleep(time.Second) // of fake time: net/http lets a peer see the end of a connection
	})
	c.Transport = &mslhttp.Transport{URL: "http://pipe/", Client: &http.Client{Transport: transport}}
}

// bubbled carry messages only in memory.
var bubbled = map[string]func(testing.TB, *network, *msl.Client){
	"HTTP/1.1": overPipedHTTP,
	"stream":   overStream,
}
