package mslhttp

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/tracetest"
)

// TestUpstreamTrace has the service get the ids of the span of its request, and the original
// request stay as it was.
func TestUpstreamTrace(t *testing.T) {
	got := make(chan http.Header, 4)
	target := service(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header
		if r.URL.Path == "/away" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	p := &place{condition: &condition{}, Target: target, transport: http.DefaultTransport}
	var recorder tracetest.Recorder
	for _, c := range []struct {
		path   string
		traced bool
	}{{"/", false}, {"/", true}, {"/away", true}} {
		out, _ := http.NewRequest(http.MethodGet, target.URL.String(), nil)
		out.URL.Path = c.path
		out.Header.Set("Traceparent", "00-of-a-program")
		out.Header.Set("Tracestate", "of=a-program")
		if c.traced {
			ctx, message := recorder.Tracer("").Start(t.Context(), "message")
			defer message.End()
			out = out.WithContext(ctx)
		}
		a := newAttempt(p, out)
		r, err := a.run()
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
		h := <-got
		if out.Header.Get("Traceparent") != "00-of-a-program" {
			t.Errorf("%+v: the request of the program was changed", c)
		}
		if !c.traced {
			if h.Get("Traceparent") != "00-of-a-program" || a.span != nil {
				t.Errorf("%+v: %v", c, h)
			}
			continue
		}
		spans := recorder.Spans()
		s := spans[len(spans)-1]
		id := s.SpanContext()
		if want := "00-" + id.TraceID().String() + "-" + id.SpanID().String() + "-01"; h.Get("Traceparent") != want || h.Get("Tracestate") != "" {
			t.Errorf("%+v: %v, want %s", c, h, want)
		}
		if s.Name != "upstream request" || s.Parent == nil || s.Parent.Name != "message" || s.Ended != 1 || s.Failed != (c.path == "/away") || s.Attributes["http.response.status_code"] == nil {
			t.Errorf("%+v: %+v", c, s)
		}
	}
	closed := target
	closed.URL.Host = "127.0.0.1:1"
	ctx, _ := recorder.Tracer("").Start(t.Context(), "message")
	out, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:1/", strings.NewReader("data"))
	if _, err := newAttempt(&place{condition: &condition{}, Target: closed, transport: http.DefaultTransport}, out).run(); err == nil {
		t.Fatal("nobody answers there")
	}
	spans := recorder.Spans()
	if s := spans[len(spans)-1]; s.Name != "upstream request" || !s.Failed || s.Ended != 1 {
		t.Errorf("%+v", s)
	}
}
