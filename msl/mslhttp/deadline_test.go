package mslhttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// A reported handler keeps its reports.
type reported struct {
	mu  sync.Mutex
	all []Exchange
}

func (r *reported) report(_ context.Context, e Exchange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, e)
}

// last waits for a report, and returns it.
func (r *reported) last(t *testing.T) Exchange {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		r.mu.Lock()
		n := len(r.all)
		r.mu.Unlock()
		if n > 0 {
			return r.all[n-1]
		}
	}
	t.Fatal("nothing was reported")
	return Exchange{}
}

// noneClient is a client that proves nothing.
func noneClient(t *testing.T, url string) *msl.Client {
	t.Helper()
	c := &msl.Client{Local: &entityauth.NoneEntity{Identity: "device"}, Peers: []msl.EntityScheme{&entityauth.None{Anyone: true}}, Transport: &Transport{URL: url}}
	t.Cleanup(func() { c.Close() })
	return c
}

func serve(t *testing.T, h *Handler) string {
	t.Helper()
	h.Server = noneServer(t)
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// pipedClient is noneClient of a handler that is served over pipes, in fake time.
func pipedClient(t *testing.T, h *Handler) *msl.Client {
	h.Server = noneServer(t)
	pipes, server := make(pipeListener), &http.Server{Handler: h}
	go server.Serve(pipes)
	web := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		pipes <- theirs
		return ours, nil
	}}}
	t.Cleanup(func() {
		web.CloseIdleConnections()
		server.Close()
		time.Sleep(time.Minute) // net/http lingers on what it closes
	})
	c := noneClient(t, "http://pipe/")
	c.Transport = &Transport{URL: "http://pipe/", Client: web}
	return c
}

// TestDeadlineIsTold has an application that is too slow: its context ends, and the
// peer is told before time is up.
func TestDeadlineIsTold(t *testing.T) {
	for name, handle := range map[string]msl.Handler{
		"heeds its context": func(ctx context.Context, _ *msl.ResponseWriter, _ *msl.Message) error {
			<-ctx.Done()
			return ctx.Err()
		},
		"says what was done": func(ctx context.Context, _ *msl.ResponseWriter, _ *msl.Message) error {
			<-ctx.Done()
			return &msl.Error{Code: msl.ErrMSLCommsFailure, MessageID: -1, Text: "the door may be open", Err: ctx.Err()}
		},
		"blames the message": func(ctx context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
			<-ctx.Done()
			return msl.ErrMSLCommsFailure
		},
		"is told the cause": func(ctx context.Context, _ *msl.ResponseWriter, _ *msl.Message) error {
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), ErrTimeout) {
				return msl.ErrMSLParseError
			}
			return context.Cause(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			said := "took too long"
			if name == "says what was done" {
				said += "; the door may be open"
			}
			synctest.Test(t, func(t *testing.T) { checkTold(t, handle, said) })
		})
	}
}

func checkTold(t *testing.T, handle msl.Handler, said string) {
	var got reported
	c := pipedClient(t, &Handler{Timeout: 4 * unit, Handle: handle, Report: got.report})
	start := time.Now()
	_, err := c.Do(t.Context(), &msl.Request{Body: msl.BytesBody([]byte("x"))})
	var peer *msl.PeerError
	if !errors.As(err, &peer) || peer.Response != msl.TransientFailure || !strings.Contains(peer.Message, said) {
		t.Errorf("the peer got %v", err)
	}
	if took := time.Since(start); took < 2*unit || took > 4*unit {
		t.Errorf("it took %v", took)
	}
	if e := got.last(t); e.Err == nil || e.MessageID == 0 || e.Identity != "device" {
		t.Errorf("reported %+v", e)
	}
}

// TestSlowRequestIsTold has a request that does not end in time.
func TestSlowRequestIsTold(t *testing.T) {
	url := serve(t, &Handler{Timeout: 4 * unit, Handle: func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		_, err := io.Copy(w, m.Body)
		return err
	}})
	body := &slowBody{ctx: t.Context()}
	_, err := noneClient(t, url).Do(t.Context(), &msl.Request{Interactive: true, Body: func() (io.ReadCloser, error) { return io.NopCloser(body), nil }})
	var peer *msl.PeerError
	if !errors.As(err, &peer) || peer.Response != msl.TransientFailure {
		t.Errorf("the peer got %v", err)
	}
}

// A slowBody returns one byte, and then nothing until the test ends.
type slowBody struct {
	ctx  context.Context
	gave bool
}

func (s *slowBody) Read(p []byte) (int, error) {
	if !s.gave {
		s.gave = true
		return copy(p, "x"), nil
	}
	<-s.ctx.Done()
	return 0, io.EOF
}

// TestUndeliveredIsNoSuccess has a peer that does not read the answer.
func TestUndeliveredIsNoSuccess(t *testing.T) {
	for name, size := range map[string]int{"short": 100, "long": 64 << 20} {
		t.Run(name, func(t *testing.T) {
			var got reported
			gone := make(chan struct{})
			url := serve(t, &Handler{Timeout: 10 * unit, Report: got.report, Handle: func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				if _, err := io.Copy(io.Discard, m.Body); err != nil {
					return err
				}
				<-gone
				_, err := w.Write(make([]byte, size))
				return err
			}})
			c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			message := noneMessage("headerdata", headerInside) + noneChunk(lastInside)
			io.WriteString(c, fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(message), message))
			time.Sleep(unit)
			if size < 1000 {
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
				time.Sleep(unit)
			} else {
				defer c.Close() // it reads nothing
			}
			close(gone)
			if e := got.last(t); e.Err == nil || e.MessageID != 1 {
				t.Errorf("reported %+v", e)
			}
		})
	}
}

// TestIdleForStreams has an answer that takes longer than the timeout but keeps moving,
// and one that stalls.
func TestIdleForStreams(t *testing.T) {
	for _, test := range []struct {
		name    string
		idle    time.Duration
		pause   time.Duration
		flush   bool
		refused bool
	}{
		{"moves", 4 * unit, unit, true, false},
		{"stands still", unit, 4 * unit, true, true},
		{"without an idle time", 0, unit, true, true},
		{"is no stream", 4 * unit, unit, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := pipedClient(t, &Handler{Timeout: 4 * unit, Idle: test.idle, Handle: func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
					for range 6 {
						select {
						case <-ctx.Done():
							return ctx.Err()
						case <-time.After(test.pause):
						}
						if _, err := io.WriteString(w, "tick"); err != nil {
							return err
						}
						if test.flush {
							if err := w.Flush(); err != nil {
								return err
							}
						}
					}
					return nil
				}})
				r, err := c.Do(t.Context(), &msl.Request{Body: msl.BytesBody(nil)})
				var answer []byte
				if err == nil {
					answer, err = io.ReadAll(r.Body)
					r.Body.Close()
				}
				if refused := err != nil; refused != test.refused || !refused && string(answer) != strings.Repeat("tick", 6) {
					t.Errorf("answer %q, error %v", answer, err)
				}
			})
		})
	}
}

// TestTooLong has a message that is longer than the server allows.
func TestTooLong(t *testing.T) {
	for name, handle := range map[string]msl.Handler{
		"read": func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			_, err := io.Copy(io.Discard, m.Body)
			return err
		},
		"written as it comes": func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			data, err := io.ReadAll(m.Body)
			w.Write(data[:min(len(data), 100)])
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got reported
			url := serve(t, &Handler{MaxBody: 1 << 20, Handle: handle, Report: got.report})
			data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
			_, err := noneClient(t, url).Do(t.Context(), &msl.Request{Body: msl.BytesBody(data)})
			var status *StatusError
			if !errors.As(err, &status) || status.Status != http.StatusRequestEntityTooLarge || !strings.Contains(err.Error(), "limits.body") {
				t.Errorf("the peer got %v", err)
			}
			var long *http.MaxBytesError
			if e := got.last(t); !errors.As(e.Err, &long) {
				t.Errorf("reported %+v", e)
			}
		})
	}
}
