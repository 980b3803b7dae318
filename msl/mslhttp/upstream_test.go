package mslhttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/porttest"
	"github.com/msl-hsm/msl-hsm/msl"
)

// through sends a message of data through a gateway in front of u, and returns the answer.
func through(t *testing.T, u *Upstream, data []byte) (string, error) {
	t.Helper()
	return ask(t, noneClient(t, serve(t, &Handler{Handle: (&Gateway{Upstream: u}).Handle})), data)
}

func ask(t *testing.T, c *msl.Client, data []byte) (string, error) {
	t.Helper()
	r, err := c.Do(t.Context(), &msl.Request{Body: msl.BytesBody(data)})
	if err != nil {
		return "", err
	}
	answer, err := io.ReadAll(r.Body)
	return string(answer), errors.Join(err, r.Body.Close())
}

// service runs an HTTP service, and returns it as a target.
func service(t *testing.T, handle http.HandlerFunc) Target {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return target(t, s.URL)
}

// TestUpstreamLength has the service tell how long a message was said to be: a message
// that fits the buffer has a length, whatever its chunks, and a longer one is a stream or
// an error.
func TestUpstreamLength(t *testing.T) {
	tells := service(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.ContentLength, " ", r.TransferEncoding, " ", n, " ", err)
	})
	const chunk = 64 << 10
	for _, c := range []struct {
		size, buffer int
		whole        bool
		want         string
	}{
		{0, 0, false, "0 [] 0 <nil>"},
		{5, 0, false, "5 [] 5 <nil>"},
		{0, -1, true, "0 [] 0 <nil>"},
		{5, -1, true, "5 [] 5 <nil>"},
		{chunk - 1, -1, false, "65535 [] 65535 <nil>"},
		{2*chunk + 1, 0, false, "131073 [] 131073 <nil>"},
		{2*chunk + 1, -1, false, "-1 [chunked] 131073 <nil>"},
		{2*chunk + 1, 2*chunk + 2, true, "131073 [] 131073 <nil>"},
		{1<<20 + 1, 0, false, "-1 [chunked] 1048577 <nil>"},
		{1<<20 + 1, 0, true, "longer than the service behind the server takes"},
		{5 * chunk, -1, true, "longer than the service behind the server takes"},
	} {
		t.Run(fmt.Sprint(c.size, " ", c.buffer, " ", c.whole), func(t *testing.T) {
			got, err := through(t, &Upstream{Targets: []Target{tells}, Buffer: c.buffer, Whole: c.whole}, bytes.Repeat([]byte("x"), c.size))
			if told := fmt.Sprint(err); got != c.want && (err == nil || !strings.Contains(told, c.want) || !errors.Is(err, msl.ErrMSLCommsFailure)) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// TestUpstreamTexts checks that a peer learns what really happened.
func TestUpstreamTexts(t *testing.T) {
	for status, want := range map[int]string{
		302: "FAIL (9001 MSL_COMMS_FAILURE): \"the service behind the server answered HTTP 302 Found\"",
		404: "FAIL (9001 MSL_COMMS_FAILURE): \"the service behind the server answered HTTP 404 Not Found\"",
		429: "TRANSIENT_FAILURE (9000 INTERNAL_EXCEPTION): \"the service behind the server answered HTTP 429 Too Many Requests\"",
		501: "FAIL (9001 MSL_COMMS_FAILURE): \"the service behind the server answered HTTP 501 Not Implemented: it does not support such a request\"",
		600: "FAIL (9001 MSL_COMMS_FAILURE): \"the service behind the server answered HTTP 600\"",
		503: "TRANSIENT_FAILURE (9000 INTERNAL_EXCEPTION): \"the service behind the server answered HTTP 503 Service Unavailable\"",
		599: "TRANSIENT_FAILURE (9000 INTERNAL_EXCEPTION): \"the service behind the server answered HTTP 599\"",
		-1:  "FAIL (9001 MSL_COMMS_FAILURE): \"the service behind the server got the message, and its answer did not come or broke off\"",
		0:   "TRANSIENT_FAILURE (9000 INTERNAL_EXCEPTION): \"the service behind the server cannot be reached\"",
	} {
		at := service(t, func(w http.ResponseWriter, r *http.Request) {
			if status < 0 {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(status)
		})
		if status == 0 {
			at = target(t, "unix:"+filepath.Join(t.TempDir(), "nobody"))
		}
		var seen reported
		h := &Handler{Handle: (&Gateway{Upstream: &Upstream{Targets: []Target{at}}}).Handle, Report: seen.report}
		_, err := ask(t, noneClient(t, serve(t, h)), []byte("x"))
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%d: %v; want %s", status, err, want)
		}
		if logged := seen.last(t).Err; strings.Contains(logged.Error(), "I/O failure") {
			t.Errorf("%d: the log says %v", status, logged)
		}
		var service *ServiceError
		if status > 0 && (!errors.As(seen.last(t).Err, &service) || service.Status != status) {
			t.Errorf("%d: %v", status, seen.last(t).Err)
		}
	}
}

// TestUpstreamDots refuses paths that lead out of that of the target.
func TestUpstreamDots(t *testing.T) {
	at := service(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("asked for %s", r.URL) })
	u := &Upstream{Targets: []Target{at}}
	for _, path := range []string{"..", "/../admin", "/a/./b", "/%2e%2E/admin", "/a%2f..%2fb", `/a\..\b`, "/..;x=1/b"} {
		to, err := url.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = u.Do(&msl.Message{Body: strings.NewReader("x")}, &http.Request{Method: "GET", URL: to})
		if code := new(msl.Error); !errors.As(err, &code) || code.Code != msl.ErrMSLCommsFailure {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// TestUpstreamSocket reaches a service by its Unix socket.
func TestUpstreamSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Host+r.URL.Path)
	})}}
	s.Start()
	defer s.Close()
	if got, err := through(t, &Upstream{Targets: []Target{target(t, "unix:"+path+":/api")}}, nil); got != "localhost/api" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestUpstreamChoice has several targets: all get requests, and one that is down gets
// none for a while. A message is never sent twice.
func TestUpstreamChoice(t *testing.T) {
	var hits [3]atomic.Int32
	var targets []Target
	for i := range hits {
		targets = append(targets, service(t, func(http.ResponseWriter, *http.Request) { hits[i].Add(1) }))
	}
	targets = append(targets, target(t, "http://"+porttest.Address(t)))
	u := &Upstream{Targets: targets, Rest: time.Hour}
	c := noneClient(t, serve(t, &Handler{Handle: (&Gateway{Upstream: u}).Handle}))
	for range 15 {
		if _, err := ask(t, c, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	sum := int32(0)
	for i := range hits {
		n := hits[i].Load()
		if sum += n; n < 3 {
			t.Errorf("target %d got %d of 15", i, n)
		}
	}
	if sum != 15 {
		t.Errorf("the targets got %d messages of 15", sum)
	}
	if u.places[3].fit(time.Now()) || !u.places[3].fit(time.Now().Add(2*time.Hour)) {
		t.Error("the target that is down is asked at once, or never")
	}
}

// TestUpstreamRepeatsNothing has two targets that take the request, and end the
// connection: the message goes to one of them.
func TestUpstreamRepeatsNothing(t *testing.T) {
	var hits atomic.Int32
	rude := func(http.ResponseWriter, *http.Request) {
		hits.Add(1)
		panic(http.ErrAbortHandler)
	}
	u := &Upstream{Targets: []Target{service(t, rude), service(t, rude)}}
	if _, err := through(t, u, []byte("x")); !errors.Is(err, msl.ErrMSLCommsFailure) || hits.Load() != 1 {
		t.Errorf("%d requests, %v", hits.Load(), err)
	}
}

// TestUpstreamLeastBusy has one target that is slow: the others get what comes meanwhile.
func TestUpstreamLeastBusy(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{}, 2)
	slow := service(t, func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-release })
	quick := service(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "quick") })
	u := &Upstream{Targets: []Target{slow, quick}}
	url := serve(t, &Handler{Handle: (&Gateway{Upstream: u}).Handle})
	ended := make(chan error, 1)
	go func() {
		for { // until the slow one is asked
			if got, err := ask(t, noneClient(t, url), nil); got != "quick" || err != nil {
				ended <- err
				return
			}
		}
	}()
	<-entered
	for range 5 {
		if got, err := ask(t, noneClient(t, url), nil); got != "quick" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	close(release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestUpstreamHealth takes a target out of use while its health check fails.
func TestUpstreamHealth(t *testing.T) {
	var sick atomic.Bool
	checks := make(chan string, 100)
	ill := service(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/healthz" {
			if sick.Load() {
				w.WriteHeader(500)
			}
			checks <- r.Method + " " + r.Header.Get("Authorization")
			return
		}
		io.WriteString(w, "ill")
	})
	ill = target(t, ill.URL.String()+"/api")
	well := service(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "well") })
	u := &Upstream{Targets: []Target{ill, well}, Header: http.Header{"Authorization": {"Bearer x"}}, Check: HealthCheck{Path: "/healthz", Interval: 5 * time.Millisecond, Timeout: time.Second}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := u.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c := noneClient(t, serve(t, &Handler{Handle: (&Gateway{Upstream: u}).Handle}))
	settle := func() { // the second check that ends from now on began after
		for range 3 {
			if got := <-checks; got != "GET Bearer x" {
				t.Errorf("check by %q", got)
			}
		}
	}
	count := func() (n int) {
		for range 6 {
			got, err := ask(t, c, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got == "ill" {
				n++
			}
		}
		return n
	}
	settle()
	if n := count(); n != 3 {
		t.Errorf("%d of 6 at a healthy target", n)
	}
	sick.Store(true)
	for len(checks) > 0 {
		<-checks
	}
	settle()
	if n := count(); n != 0 {
		t.Errorf("%d of 6 at a sick target", n)
	}
	sick.Store(false)
	for len(checks) > 0 {
		<-checks
	}
	settle()
	if n := count(); n != 3 {
		t.Errorf("%d of 6 at a target that is well again", n)
	}
}

// TestUpstreamContinues replaces an upstream while its target is down: the outage is logged once,
// and so is its end. The results of health checks count as long as there are any.
func TestUpstreamContinues(t *testing.T) {
	at := porttest.Address(t)
	var log bytes.Buffer
	down := &Upstream{Targets: []Target{target(t, "http://"+at)}, Rest: time.Hour}
	again := func() {
		next := &Upstream{Targets: []Target{target(t, "http://other.invalid"), down.Targets[len(down.Targets)-1]}, Rest: time.Hour, Log: slog.New(slog.NewTextHandler(&log, nil))}
		next.Continue(down)
		down = next
	}
	try := func() {
		p := down.places[len(down.places)-1]
		if r, err := p.transport.RoundTrip(&http.Request{URL: p.URL, Header: http.Header{}}); err != nil {
			down.failed(p, err)
		} else {
			r.Body.Close()
			down.returned(p, time.Now())
		}
	}
	for range 3 {
		again()
		try()
	}
	again()
	if found := down.States()[1]; found.Err == nil || down.places[1].fit(time.Now()) || !down.places[0].fit(time.Now()) {
		t.Errorf("forgotten: %+v", found)
	}
	s := &httptest.Server{Listener: porttest.Listen(t, at), Config: &http.Server{Handler: http.NotFoundHandler()}}
	s.Start()
	t.Cleanup(s.Close)
	for range 3 {
		try()
		again()
	}
	if got := log.String(); strings.Count(got, "cannot be reached") != 1 || strings.Count(got, "can be reached again") != 1 {
		t.Error(got)
	}
	for path, want := range map[string]bool{"": true, "/healthz": false} {
		former := &Upstream{Targets: down.Targets, Check: HealthCheck{Path: "/"}}
		next := &Upstream{Targets: down.Targets, Check: HealthCheck{Path: path}}
		former.open()
		former.diagnose(former.places[1], time.Now(), errors.New("sick"))
		next.Continue(former)
		if next.places[1].fit(time.Now()) != want {
			t.Errorf("after a failed check, with check %q: %v, want %v", path, !want, want)
		}
	}
}

// TestUpstreamRestarts has a service that ends, and returns at the same address: the
// connection that was kept costs no message.
func TestUpstreamRestarts(t *testing.T) {
	at := porttest.Address(t)
	c := noneClient(t, serve(t, &Handler{Handle: (&Gateway{URL: "http://" + at}).Handle}))
	for i := range 3 {
		s := &httptest.Server{Listener: porttest.Listen(t, at), Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(w, r.Body)
		})}}
		s.Start()
		for range 2 {
			if got, err := ask(t, c, []byte("x")); got != "x" || err != nil {
				t.Errorf("start %d: %q, %v", i, got, err)
			}
		}
		s.Close()
		_, err := ask(t, c, []byte("x"))
		if errors.Is(err, msl.ErrMSLCommsFailure) { // it was written just before the end was noticed, so nobody knows
			_, err = ask(t, c, []byte("x"))
		}
		if !errors.Is(err, msl.ErrInternalException) {
			t.Errorf("end %d: %v", i, err)
		}
	}
}

// TestUpstreamSlowCheck has a health check that takes longer than the pause between two, and
// less than its own time: the place is well.
func TestUpstreamSlowCheck(t *testing.T) {
	checks := make(chan bool, 2)
	at := service(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-r.Context().Done():
		}
		select {
		case checks <- r.Context().Err() == nil:
		default: // two are enough
		}
	})
	u := &Upstream{Targets: []Target{at}, Check: HealthCheck{Path: "/healthz", Interval: time.Millisecond, Timeout: time.Minute}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := u.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !<-checks {
			t.Fatal("the check was given up")
		}
	}
	if state := u.States()[0]; state.Err != nil {
		t.Errorf("%q is taken for ill", state.Err)
	}
}
