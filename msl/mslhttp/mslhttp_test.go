package mslhttp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

func TestTransport(t *testing.T) {
	for _, size := range []int{1, bufferSize, bufferSize + 1, 3 * bufferSize} {
		var length int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			length = r.ContentLength
			http.NewResponseController(w).EnableFullDuplex()
			io.Copy(w, r.Body)
		}))
		message := bytes.Repeat([]byte("x"), size)
		answer, err := (&Transport{URL: server.URL}).RoundTrip(context.Background(), func(w io.Writer) error {
			for rest := message; len(rest) > 0; rest = rest[min(len(rest), 1000):] {
				if _, err := w.Write(rest[:min(len(rest), 1000)]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(answer)
		answer.Close()
		server.Close()
		if err != nil || !bytes.Equal(got, message) {
			t.Errorf("%d bytes: got %d back, error %v", size, len(got), err)
		}
		if long := size > bufferSize; long != (length < 0) {
			t.Errorf("%d bytes: content length %d", size, length)
		}
	}
}

func TestTransportFailures(t *testing.T) {
	broken := errors.New("broken body")
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer down.Close()
	_, err := (&Transport{URL: down.URL}).RoundTrip(context.Background(), func(w io.Writer) error { return nil })
	var status *StatusError
	if !errors.As(err, &status) || status.Status != 503 || status.RetryAfter != "7" {
		t.Errorf("503: got %v", err)
	}
	_, err = (&Transport{URL: down.URL}).RoundTrip(context.Background(), func(w io.Writer) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("short message that breaks: got %v", err)
	}
	_, err = (&Transport{URL: down.URL}).RoundTrip(context.Background(), func(w io.Writer) error {
		w.Write(make([]byte, 2*bufferSize))
		return broken
	})
	if err == nil {
		t.Error("long message that breaks: no error")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	release := make(chan struct{})
	defer close(release)
	_, err = (&Transport{URL: down.URL}).RoundTrip(ctx, func(w io.Writer) error { <-release; return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("body that never comes: got %v", err)
	}
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	if _, err = (&Transport{URL: closed.URL}).RoundTrip(context.Background(), func(w io.Writer) error { return nil }); err == nil {
		t.Error("no server: no error")
	}
}

// TestTransportReuse closes an answer before the end of its HTTP response: Close waits
// a little for it, so that the connection can be used again.
func TestTransportReuse(t *testing.T) {
	for delay, connections := range map[time.Duration]int{endPatience / 2: 1, 2 * endPatience: 3} {
		synctest.Test(t, func(t *testing.T) {
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "answer")
				http.NewResponseController(w).Flush()
				time.Sleep(delay) // of fake time
			})}
			dials := 0
			pipes := make(pipeListener)
			go server.Serve(pipes)
			client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				dials++
				a, b := net.Pipe()
				pipes <- b
				return a, nil
			}}}
			for range 3 {
				answer, err := (&Transport{URL: "http://pipe/", Client: client}).RoundTrip(context.Background(), func(w io.Writer) error { return nil })
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(answer, make([]byte, 6)); err != nil {
					t.Fatal(err)
				}
				answer.Close()
			}
			if dials != connections {
				t.Errorf("end after %v: %d connections, want %d", delay, dials, connections)
			}
			time.Sleep(2 * delay) // of fake time, until the last handler is done
			client.CloseIdleConnections()
			server.Close()
		})
	}
}

// A pipeListener accepts the connections that are sent to it.
type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	if c, ok := <-l; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (l pipeListener) Close() error { close(l); return nil }
func (pipeListener) Addr() net.Addr { return &net.UnixAddr{} }
