package agent

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/httpform"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// carries has the agent carry HTTP to a service behind a gateway.
func (n *network) carries(service http.HandlerFunc) *network {
	n.Helper()
	s := httptest.NewServer(service)
	n.Cleanup(s.Close)
	return n.carriesTo(s.URL + "/base")
}

func (n *network) carriesTo(url string) *network {
	n.Helper()
	target, err := mslhttp.ParseTarget(url)
	if err != nil {
		n.Fatal(err)
	}
	plain := &mslhttp.Gateway{URL: url}
	g := &mslhttp.HTTPGateway{
		Upstream: &mslhttp.Upstream{Targets: []mslhttp.Target{target}}, Plain: plain.Handle,
		Rules: mslhttp.HTTPRules{Paths: []string{"/"}, RequestHeaders: []string{"X-Listed"}, ResponseHeaders: []string{"X-Back"}},
	}
	n.gate.Handle, n.handler.HTTP = g.Handle, true
	n.gate.MaxBody = -1
	return n
}

// TestHTTP carries requests of all kinds, and their answers.
func TestHTTP(t *testing.T) {
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		h := w.Header()
		h.Set("X-Back", fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.ContentLength, " ", string(body)))
		h.Set("X-Not-Listed", "x")
		h.Set("Msl-Error", "server")
		h.Set("Msl-Message-Id", "1")
		h.Set("Set-Cookie", "a=b")
		h.Set("Etag", r.Header.Get("X-Listed")+r.Header.Get("Cookie")+r.Header.Get("X-Other")+r.Header.Get("Accept"))
		h.Set("Link", r.Header.Get("Msl-Entity")+r.Header.Get("Msl_entity"))
		if code := r.URL.Query().Get("status"); code != "" {
			h.Set("Retry-After", "7")
			h.Set("Location", "/elsewhere")
			var status int
			fmt.Sscan(code, &status)
			w.WriteHeader(status)
		}
		if r.URL.Query().Get("status") != "204" && r.URL.Query().Get("status") != "304" {
			io.WriteString(w, "from the service")
		}
	}).serve()
	n.echoesNothing()
	for _, c := range []struct {
		method, path, body string
		status             int
		want, text         string
	}{
		{"GET", "", "", 200, "GET /base/ 0 ", "from the service"},
		{"GET", "a/b%20c?d=e%2Ff&g", "", 200, "GET /base/a/b%20c?d=e%2Ff&g 0 ", "from the service"},
		{"POST", "x", "data", 200, "POST /base/x 4 data", "from the service"},
		{"PUT", "x", "", 200, "PUT /base/x 0 ", "from the service"},
		{"PATCH", "x", "data", 200, "PATCH /base/x 4 data", "from the service"},
		{"DELETE", "x", "data", 200, "DELETE /base/x 4 data", "from the service"},
		{"OPTIONS", "x", "", 200, "OPTIONS /base/x 0 ", "from the service"},
		{"HEAD", "x", "", 200, "HEAD /base/x 0 ", ""},
		{"GET", "?status=404", "", 404, "GET /base/?status=404 0 ", "from the service"},
		{"GET", "?status=503", "", 503, "GET /base/?status=503 0 ", "from the service"},
		{"GET", "?status=302", "", 302, "GET /base/?status=302 0 ", "from the service"},
		{"GET", "?status=204", "", 204, "GET /base/?status=204 0 ", ""},
		{"GET", "?status=304", "", 304, "GET /base/?status=304 0 ", ""},
		{"POST", "?status=500", "x", 500, "POST /base/?status=500 1 x", "from the service"},
	} {
		n.web.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		r, text := n.do(c.method, c.path, strings.NewReader(c.body), "X-Listed: 1", "Cookie: 2", "X-Other: 3", "Accept: 4", "Msl-Non-Replayable: true", "Authorization: x")
		if r.StatusCode != c.status || r.Header.Get("X-Back") != strings.TrimSpace(c.want) || text != c.text {
			t.Errorf("%s %s: %d %q %q", c.method, c.path, r.StatusCode, r.Header.Get("X-Back"), text)
		}
		if h := r.Header; h["Msl-Error"] != nil || h.Get("X-Not-Listed") != "" || h["Set-Cookie"] != nil || h.Get("Etag") != "14" || h.Get("Link") != "device" || h.Get("Msl-Message-Id") == "1" {
			t.Errorf("%s %s: headers %v", c.method, c.path, h)
		}
		if (c.status >= 300) != (r.Header.Get("Retry-After") == "7") && c.status != 204 {
			t.Errorf("%d: Retry-After %q", c.status, r.Header.Get("Retry-After"))
		}
	}
}

// TestHTTPNoAnswer has a program that does not wait for the service.
func TestHTTPNoAnswer(t *testing.T) {
	asked := make(chan string, 1)
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) { asked <- r.Method + r.URL.Path }).serve()
	if r, text := n.do("PUT", "x", nil, "Msl-No-Answer: true"); r.StatusCode != 202 || text != "" {
		t.Errorf("%d %q", r.StatusCode, text)
	}
	if got := <-asked; got != "PUT/base/x" {
		t.Errorf("asked %s", got)
	}
}

// echoesNothing sends a first message, so that what follows has a session.
func (n *network) echoesNothing() { n.Helper(); n.do("GET", "", nil) }

// TestHTTPRefused has requests that the agent or the server does not carry.
func TestHTTPRefused(t *testing.T) {
	var asked atomic.Int64
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) { asked.Add(1) })
	n.handler.MaxBody = 1000
	n.serve()
	for name, c := range map[string]struct {
		method, path, body string
		header             string
		status             int
		by, want           string
	}{
		"dots":         {"GET", "a/../b", "", "", 400, "server", "segment of dots"},
		"encoded dots": {"GET", "a/%2e%2e/b", "", "", 400, "server", "encoded"},
		"a method":     {"TRACE", "", "", "", 405, "server", "method"},
		"websocket":    {"GET", "", "", "Upgrade: websocket", 501, "agent", "WebSockets"},
		"a page":       {"GET", "", "", "Origin: http://x", 403, "agent", "web pages"},
		"an empty one": {"GET", "", "", "Origin: ", 403, "agent", "web pages"},
		"an image":     {"GET", "", "", "User-Agent: Mozilla/5.0 (X11)", 403, "agent", "web pages"},
		"a form":       {"POST", "", "a=b", "Referer: http://x/", 403, "agent", "web pages"},
		"a preflight":  {"OPTIONS", "", "", "Access-Control-Request-Method: PUT", 403, "agent", "web pages"},
		"another host": {"GET", "", "", "Host: evil.example", 403, "agent", "Host"},
		"a long body":  {"POST", "", strings.Repeat("x", 1001), "", 413, "agent", "1000 bytes"},
		"unknown":      {"GET", "", "", "Msl-Entity: root", 400, "agent", "Msl-Entity"},
		"unknown user": {"GET", "", "", "Msl-User: root", 403, "agent", "root"},
	} {
		t.Run(name, func(t *testing.T) {
			var headers []string
			if c.header != "" {
				headers = []string{c.header}
			}
			r, text := n.do(c.method, c.path, strings.NewReader(c.body), headers...)
			wanted{c.status, false, c.want}.check(t, r, text)
			if r.Header.Get("Msl-Error") != c.by {
				t.Errorf("by %q", r.Header.Get("Msl-Error"))
			}
		})
	}
	if asked.Load() != 0 {
		t.Errorf("the service was asked %d times", asked.Load())
	}
	if r, _ := n.do("GET", "", nil, "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: x"); r.StatusCode != 200 {
		t.Errorf("h2c: %d", r.StatusCode)
	}
	at := strings.TrimSuffix(strings.TrimPrefix(n.base, "http://"), "/")
	for sent, want := range map[string]string{
		"GET http://localhost/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":            "400",
		"GET /#x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":                           "400",
		"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\nConnection: close\r\n\r\n":           "400",
		"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n": "413",
	} {
		if answer := exchangeRaw(t, at, sent); !strings.HasPrefix(answer, "HTTP/1.1 "+want) || strings.Contains(answer, "httpform") {
			t.Errorf("%q: %q", sent, answer)
		}
	}
}

// TestHTTPNotThere has servers that do not take HTTP requests.
func TestHTTPNotThere(t *testing.T) {
	n := newNetwork(t)
	n.handler.HTTP = true
	n.serve()
	r, text := n.do("GET", "x", nil) // an echo
	wanted{502, false, "set server.http"}.check(t, r, text)
	n.gate.Handle = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error { return nil }
	r, text = n.do("GET", "x", nil)
	wanted{502, false, "set server.http"}.check(t, r, text)
	n.gate.Handle = mslhttp.RefuseHTTP("it is off", func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		t.Error("it was handled")
		return nil
	})
	r, text = n.do("POST", "x", strings.NewReader("x"))
	wanted{501, false, "it is off"}.check(t, r, text)
	if r, text = n.do("HEAD", "x", nil); r.StatusCode != 501 || text != "" || r.Header.Get("Msl-Error") != "server" {
		t.Errorf("HEAD: %d %q", r.StatusCode, text)
	}
	for _, answer := range []string{"HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 103 x\r\n\r\n", "HTTP/1.1 204 x\r\n\r\nx", "HTTP/1.1 200 OK\nMsl-Error: server\n\n"} {
		n.gate.Handle = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			_, err := io.WriteString(w, httpform.ResponseLine+answer)
			return err
		}
		r, text := n.do("GET", "x", nil)
		if r.StatusCode != 502 && r.StatusCode != 500 || r.Header.Get("Msl-Error") != "agent" {
			t.Errorf("%q: %d %q", answer, r.StatusCode, text)
		}
	}
}

// TestHTTPPlainStays sends plain data to a gateway that takes HTTP, too.
func TestHTTPPlainStays(t *testing.T) {
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d %s", r.RequestURI, r.ContentLength, body)
	})
	n.handler.HTTP = false
	n.serve()
	for _, data := range []string{"", "x", "Con", httpform.RequestLine[:50], httpform.ResponseLine} {
		if _, text := n.post(data); text != fmt.Sprintf("/base %d %s", len(data), data) {
			t.Errorf("%q: %q", data, text)
		}
	}
}
