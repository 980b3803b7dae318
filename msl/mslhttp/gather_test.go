package mslhttp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
)

// A countingListener counts the writes on its connections, which fail if fault is set.
type countingListener struct {
	net.Listener
	writes atomic.Int64
	fault  atomic.Pointer[error]
}

type countingConn struct {
	net.Conn
	listener *countingListener
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return countingConn{conn, l}, err
}

func (c countingConn) Write(p []byte) (int, error) {
	c.listener.writes.Add(1)
	if fault := c.listener.fault.Load(); fault != nil {
		return 0, *fault
	}
	return c.Conn.Write(p)
}

// serveAnswers answers each request with as many bytes as it has, in parts of 1000, and
// returns its listener, and what sending the end of each answer returned.
func serveAnswers(t *testing.T) (*countingListener, chan error) {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, bounds, finished := &countingListener{Listener: raw}, &Connections{}, make(chan error, 1)
	server := &http.Server{ConnContext: bounds.Context, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := &Handler{}
		s := h.open(w, r)
		defer s.end()
		s.exchange, _ = beginExchange(r.Context(), "source")
		defer s.exchange.end()
		for part := make([]byte, 1000); ; {
			n, err := io.ReadFull(s, part)
			s.Write(part[:n])
			if err != nil {
				break
			}
		}
		finished <- s.Finish()
	})}
	go server.Serve(bounds.Listen(l))
	t.Cleanup(func() { server.Close() })
	return l, finished
}

// An answer that is sent with its length is one write, and so one packet for the client
// to wait for if the network takes it; the bytes are the same for any length.
func TestAnswerIsOneWrite(t *testing.T) {
	l, finished := serveAnswers(t)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, test := range []struct {
		size int
		once bool
	}{{1, true}, {1000, true}, {3900, true}, {4096, true}, {5000, true}, {holdSize, true}, {holdSize + 1, false}, {100_000, false}, {5000, true}} {
		message := bytes.Repeat([]byte("0123456789"), test.size/10+1)[:test.size]
		l.writes.Store(0)
		r, err := client.Post("http://"+l.Addr().String(), "", bytes.NewReader(message))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || !bytes.Equal(got, message) {
			t.Errorf("%d bytes: got %d back, error %v", test.size, len(got), err)
		}
		if err := <-finished; err != nil {
			t.Errorf("%d bytes: %v", test.size, err)
		}
		if n := l.writes.Load(); (n == 1) != test.once {
			t.Errorf("%d bytes: %d writes", test.size, n)
		}
	}
}

// An answer that the network does not take is a failure, though net/http got it.
func TestAnswerNotTaken(t *testing.T) {
	l, finished := serveAnswers(t)
	broken := errors.New("broken network")
	l.fault.Store(&broken)
	r, err := http.Post("http://"+l.Addr().String(), "", bytes.NewReader(make([]byte, 2000)))
	if err == nil {
		r.Body.Close()
		t.Error("the client got an answer")
	}
	if err := <-finished; !errors.Is(err, broken) {
		t.Errorf("the end of the answer: %v", err)
	}
}
