package mslhttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestAnswersAreStreamed has a service that says the next thing only when the device has
// read the last one.
func TestAnswersAreStreamed(t *testing.T) {
	for kind, length := range map[string]string{"text/event-stream; charset=utf-8": "", "text/plain": "", "text/event-stream": "15"} {
		t.Run(kind+length, func(t *testing.T) {
			read := make(chan struct{})
			at := service(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", kind)
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				for i := range 5 {
					fmt.Fprintf(w, "%d..", i)
					http.NewResponseController(w).Flush()
					<-read
				}
			})
			c := noneClient(t, serve(t, &Handler{Handle: (&Gateway{Upstream: &Upstream{Targets: []Target{at}}}).Handle}))
			r, err := c.Do(t.Context(), &msl.Request{Body: msl.BytesBody([]byte("x"))})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			for i := range 5 {
				got := make([]byte, 3)
				if _, err := io.ReadFull(r.Body, got); err != nil || string(got) != fmt.Sprint(i, "..") {
					t.Errorf("%q, %v", got, err)
				}
				read <- struct{}{}
			}
			if rest, err := io.ReadAll(r.Body); len(rest) > 0 || err != nil {
				t.Errorf("%q, %v", rest, err)
			}
		})
	}
}

// TestEventsBegin has a stream of events with none yet: the device has the beginning of
// its answer.
func TestEventsBegin(t *testing.T) {
	begun := make(chan struct{})
	at := service(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		<-begun
		io.WriteString(w, "data: 1\n\n")
	})
	c := noneClient(t, serve(t, &Handler{Handle: (&Gateway{Upstream: &Upstream{Targets: []Target{at}}}).Handle}))
	r, err := c.Do(t.Context(), &msl.Request{Body: msl.BytesBody([]byte("x"))})
	close(begun)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if got, err := io.ReadAll(r.Body); string(got) != "data: 1\n\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestShortStreamIsOneChunk has a short answer of unknown length: it costs no more than
// one of known length.
func TestShortStreamIsOneChunk(t *testing.T) {
	sizes := map[bool]int{}
	for _, chunked := range []bool{false, true} {
		at := service(t, func(w http.ResponseWriter, _ *http.Request) {
			if chunked {
				w.Header().Set("Transfer-Encoding", "chunked")
			}
			io.WriteString(w, "short")
		})
		url := serve(t, &Handler{Handle: (&Gateway{Upstream: &Upstream{Targets: []Target{at}}}).Handle})
		response, err := http.Post(url, "", strings.NewReader(noneMessage("headerdata", headerInside)+noneChunk(lastInside)))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(response.Body)
		if response.Body.Close(); err != nil {
			t.Fatal(err)
		}
		sizes[chunked] = bytes.Count(answer, []byte(`"payload"`))
	}
	if sizes[false] != 1 || sizes[true] != 1 {
		t.Errorf("chunks by whether the length was unknown: %v", sizes)
	}
}

// TestIdleStreams has a service whose answer takes longer than an exchange may, with and
// without an idle time; and one that stalls, and is left.
func TestIdleStreams(t *testing.T) {
	for name, c := range map[string]struct {
		idle, pause time.Duration
		whole       bool
	}{
		"moves":                {4 * unit, unit, true},
		"stalls":               {unit, time.Hour, false},
		"without an idle time": {0, unit, false},
	} {
		t.Run(name, func(t *testing.T) {
			left := make(chan struct{}, 1)
			at := service(t, func(w http.ResponseWriter, r *http.Request) {
				defer func() { left <- struct{}{} }()
				for range 6 {
					io.WriteString(w, "tick")
					http.NewResponseController(w).Flush()
					select {
					case <-time.After(c.pause):
					case <-r.Context().Done():
						return
					}
				}
			})
			var seen reported
			h := &Handler{Handle: (&Gateway{Upstream: &Upstream{Targets: []Target{at}}}).Handle, Timeout: 4 * unit, Idle: c.idle, Report: seen.report}
			got, err := ask(t, noneClient(t, serve(t, h)), []byte("x"))
			if c.whole != (err == nil) || c.whole && got != strings.Repeat("tick", 6) {
				t.Errorf("%q, %v", got, err)
			}
			<-left
			if logged := seen.last(t).Err; c.whole != (logged == nil) {
				t.Errorf("reported %v", logged)
			}
		})
	}
}

// TestUpstreamFaults has services that break in every way: none of them yields a short
// answer, and the next message succeeds.
func TestUpstreamFaults(t *testing.T) {
	ways := map[string]http.HandlerFunc{
		"resets before": func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) },
		"truncates": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			w.Write(make([]byte, 70000))
			panic(http.ErrAbortHandler)
		},
		"truncates a stream": func(w http.ResponseWriter, _ *http.Request) {
			w.Write(make([]byte, 70000))
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"truncates an event": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: hal")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"is late": func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"is no HTTP": func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				io.WriteString(c, "SSH-2.0-OpenSSH_9.6\r\n")
				c.Close()
			}
		},
	}
	for name, fail := range ways {
		t.Run(name, func(t *testing.T) {
			at := service(t, func(w http.ResponseWriter, r *http.Request) {
				data, err := io.ReadAll(r.Body)
				if err != nil || string(data) == "well" {
					io.WriteString(w, "well")
					return
				}
				fail(w, r)
			})
			var seen reported
			u := &Upstream{Targets: []Target{at}, Timeout: 2 * unit}
			c := noneClient(t, serve(t, &Handler{Handle: (&Gateway{Upstream: u}).Handle, Report: seen.report}))
			got, err := ask(t, c, []byte("ill"))
			if err == nil {
				t.Errorf("a success with %d bytes", len(got))
			}
			if logged := seen.last(t).Err; !errors.Is(logged, msl.ErrMSLCommsFailure) {
				t.Errorf("logged %v", logged)
			}
			if got, err := ask(t, c, []byte("well")); got != "well" || err != nil {
				t.Errorf("then %q, %v", got, err)
			}
			if n := u.places[0].busy.Load(); n != 0 {
				t.Errorf("%d requests are still counted", n)
			}
		})
	}
}

// TestChannelThroughGateway has a device that sends the next thing only when the service
// has answered the last one.
func TestChannelThroughGateway(t *testing.T) {
	at := service(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		control.EnableFullDuplex()
		for p := make([]byte, 1); ; {
			if _, err := r.Body.Read(p); err != nil {
				return
			}
			w.Write(bytes.ToUpper(p))
			control.Flush()
		}
	})
	u := &Upstream{Targets: []Target{at}, Buffer: -1}
	c := noneClient(t, serve(t, &Handler{Handle: (&Gateway{Upstream: u}).Handle}))
	body, device := io.Pipe()
	first := make(chan error, 1)
	go func() {
		_, err := io.WriteString(device, "a")
		first <- err
	}()
	r, err := c.Do(t.Context(), &msl.Request{Interactive: true, Body: func() (io.ReadCloser, error) { return body, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	for _, next := range []string{"b", "c", ""} {
		got := make([]byte, 1)
		if _, err := io.ReadFull(r.Body, got); err != nil {
			t.Fatalf("before %q: %v", next, err)
		}
		io.WriteString(device, next)
	}
	device.Close()
	if rest, err := io.ReadAll(r.Body); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestCopyShort copies a short answer with a head before it in one piece.
func TestCopyShort(t *testing.T) {
	reads := 0
	client := noneClient(t, serve(t, &Handler{Handle: func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		body := io.NopCloser(&counted{strings.NewReader(strings.Repeat("x", 300)), &reads})
		return CopyBody(w, &http.Response{ContentLength: 5, Body: body})
	}}))
	if got, err := ask(t, client, nil); len(got) != 300 || err != nil || reads > 2 {
		t.Errorf("%d bytes in %d reads, %v", len(got), reads, err)
	}
}

type counted struct {
	io.Reader
	reads *int
}

func (c *counted) Read(p []byte) (int, error) { *c.reads++; return c.Reader.Read(p) }

// TestUpstreamBriefErrors has a service answer megabytes that are not HTTP: the error, which
// goes to logs and traces, quotes the beginning, and is still what it was.
func TestUpstreamBriefErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go answersAlways(l, "HTTP/1.1 200 OK\r\nX"+strings.Repeat("\u00e9", 1<<20)+"\r\n\r\n")
	var seen, called error
	u := &Upstream{Targets: []Target{target(t, "http://"+l.Addr().String())}, Report: func(_ *msl.Message, c UpstreamCall) { called = c.Err }}
	err = tell(t, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		seen = (&Gateway{Upstream: u}).Handle(ctx, w, m)
		return seen
	})
	var protocol textproto.ProtocolError
	for _, e := range []error{seen, called} {
		if e == nil || len(e.Error()) > 2000 || !strings.Contains(e.Error(), "malformed MIME header") || !utf8.ValidString(e.Error()) || !errors.As(e, &protocol) {
			t.Errorf("%.300v", e)
		}
	}
	if err == nil {
		t.Error("the device has an answer")
	}
	if err := u.check(t.Context(), u.places[0], time.Minute); err == nil || len(err.Error()) > 2000 {
		t.Errorf("health check: %.300v", err)
	}
}
