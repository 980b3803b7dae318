package agent

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
		"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\nConnection: close\r\n\r\n":           "400",
		"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n": "413",
	} {
		if answer := exchangeRaw(t, at, sent); !strings.HasPrefix(answer, "HTTP/1.1 "+want) {
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

// TestHTTPCutOff has a service that breaks off, and programs that do.
func TestHTTPCutOff(t *testing.T) {
	saw := make(chan error, 10)
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		saw <- err
		if r.URL.Path == "/base/cut" {
			w.Header().Set("Content-Length", "1000000")
			w.Write(make([]byte, 500_000))
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path == "/base/chunks" {
			w.Write(make([]byte, 500_000))
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}).serve()
	for _, path := range []string{"cut", "chunks"} {
		response, err := n.web.Get(n.base + path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(response.Body); err == nil && response.StatusCode == 200 {
			t.Errorf("%s: %d bytes were taken for the whole", path, len(got))
		}
		response.Body.Close()
		<-saw
	}
	for _, head := range []string{"Content-Length: 200000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n30d40\r\n"} {
		conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(n.base, "http://"), "/"))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: localhost\r\n"+head+strings.Repeat("x", 150_000))
		conn.Close()
		select {
		case err := <-saw:
			if err == nil {
				t.Error("the service took a part for the whole")
			}
		case <-time.After(3 * time.Second): // it was never asked
		}
	}
}

// TestHTTPEvents measures how long events take from the service to the program.
func TestHTTPEvents(t *testing.T) {
	sent := make(chan time.Time, 1)
	next := make(chan struct{})
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("Accept"))
		http.NewResponseController(w).Flush()
		for {
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
			sent <- time.Now()
			io.WriteString(w, "data: x\n\n")
			http.NewResponseController(w).Flush()
		}
	})
	n.handler.Timeout, n.handler.Idle, n.gate.Timeout, n.gate.Idle = time.Second, 5*time.Second, time.Second, 5*time.Second
	n.serve()
	for _, kind := range []string{"text/event-stream", "text/plain"} {
		r, err := http.NewRequest("GET", n.base, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", kind)
		response, err := n.web.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var slowest time.Duration
		for i := range 8 {
			next <- struct{}{}
			if _, err := io.ReadFull(response.Body, make([]byte, 9)); err != nil {
				t.Fatalf("event %d: %v", i, err)
			}
			slowest = max(slowest, time.Since(<-sent))
			time.Sleep(200 * time.Millisecond) // the stream goes on for longer than a request may take
		}
		response.Body.Close()
		t.Logf("%s: the slowest event took %v", kind, slowest)
		if slowest > 100*time.Millisecond {
			t.Errorf("%s: an event took %v", kind, slowest)
		}
	}
}

// TestHTTPRequestStreams has a service read a request as it comes, for longer than a
// request without movement may take.
func TestHTTPRequestStreams(t *testing.T) {
	arrived := make(chan string)
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) {
		for scanner := bufio.NewScanner(r.Body); scanner.Scan(); {
			arrived <- scanner.Text()
		}
		io.WriteString(w, "done")
	})
	n.handler.Timeout, n.handler.Idle, n.gate.Timeout, n.gate.Idle = time.Second, 3*time.Second, time.Second, 3*time.Second
	n.serve()
	in, out := io.Pipe()
	go func() {
		for i := range 8 {
			fmt.Fprintln(out, i)
			if got := <-arrived; got != fmt.Sprint(i) {
				t.Errorf("got %q", got)
			}
			time.Sleep(250 * time.Millisecond) // the request goes on for longer than one may take
		}
		out.Close()
	}()
	if r, text := n.do("POST", "", in); r.StatusCode != 200 || text != "done" {
		t.Errorf("%d %q", r.StatusCode, text)
	}
}

// TestHTTPStalls has a service that says nothing: the time of a request ends.
func TestHTTPStalls(t *testing.T) {
	wait := make(chan struct{})
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-wait:
		case <-r.Context().Done():
		}
	})
	defer close(wait)
	n.handler.Timeout, n.handler.Idle = 300*time.Millisecond, 200*time.Millisecond
	n.serve()
	r, text := n.do("GET", "", nil)
	wanted{504, true, "deadline"}.check(t, r, text)
}

// TestHTTPBodies carries bodies of all sizes in both directions, in bounded memory.
func TestHTTPBodies(t *testing.T) {
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		size, err := io.Copy(sum, r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Back", fmt.Sprintf("%d %x", size, sum.Sum(nil)))
		if r.Header.Get("X-Listed") == "sized" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		piece := make([]byte, 64<<10)
		for left := size; left > 0; left -= int64(len(piece)) {
			w.Write(piece[:min(left, int64(len(piece)))])
		}
	})
	n.handler.MaxBody = 1 << 30
	n.handler.Timeout, n.gate.Timeout = time.Minute, time.Minute
	n.serve()
	sizes := []int64{0, 5, 64 << 10, 1<<20 + 1}
	if os.Getenv("MSL_SOAK") != "" {
		sizes = append(sizes, 100<<20, 400<<20)
	}
	for _, size := range sizes {
		for _, form := range []string{"sized", "chunked"} {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			start := time.Now()
			r, err := http.NewRequest("POST", n.base, io.LimitReader(zeros{}, size))
			if err != nil {
				t.Fatal(err)
			}
			if r.ContentLength = -1; form == "sized" {
				r.ContentLength = size
			}
			r.Header.Set("X-Listed", form)
			response, err := n.web.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.Copy(io.Discard, response.Body)
			response.Body.Close()
			sum := sha256.New()
			io.CopyN(sum, zeros{}, size)
			if want := fmt.Sprintf("%d %x", size, sum.Sum(nil)); err != nil || got != size || response.Header.Get("X-Back") != want || response.StatusCode != 200 {
				t.Errorf("%d bytes, %s: %d came back, %v, %s", size, form, got, err, response.Status)
			}
			runtime.ReadMemStats(&after)
			t.Logf("%d bytes both ways, %s: %v, heap in use %d MiB", size, form, time.Since(start).Round(time.Millisecond), after.HeapInuse>>20)
			if after.HeapInuse > before.HeapInuse+96<<20 {
				t.Errorf("%d bytes: the heap grew by %d MiB", size, (after.HeapInuse-before.HeapInuse)>>20)
			}
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestHTTPHalfDuplex has a program that reads only after it has written everything, and a
// service that answers while it reads.
func TestHTTPHalfDuplex(t *testing.T) {
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})
	size := 4 << 20
	if os.Getenv("MSL_SOAK") != "" {
		size = 64 << 20
	}
	n.handler.MaxBody = 65 << 20
	n.handler.Timeout, n.gate.Timeout = 4*time.Minute, 4*time.Minute
	path := n.serveUnix()
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	for _, chunked := range []bool{false, true} {
		if got := writeThenRead(t, path, data, chunked); !bytes.Equal(got, data) {
			t.Errorf("chunked %v: %d bytes of %d", chunked, len(got), size)
		}
	}
}

// TestHTTPAhead has such a program exceed what is read ahead: it is cut off, and the
// reason is reported.
func TestHTTPAhead(t *testing.T) {
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})
	n.handler.MaxBody, n.handler.MaxAhead, n.handler.Timeout, n.handler.Idle = 1<<30, 1<<20, 2*time.Second, time.Second
	told := make(chan Exchange, 1)
	n.handler.Report = func(_ context.Context, e Exchange) { told <- e }
	path := n.serveUnix()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: agent\r\nContent-Length: %d\r\n\r\n", 1<<30)
	for err == nil { // until all buffers are full, and the time is over
		_, err = conn.Write(make([]byte, 1<<20))
	}
	var ahead *AheadError
	if e := <-told; !errors.As(e.Err, &ahead) || ahead.Limit != 1<<20 {
		t.Errorf("reported %v", e.Err)
	}
}

// TestHTTPPython has a service of Python's http.server, and curl as the program.
func TestHTTPPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, "base"), 0o755)
	os.WriteFile(filepath.Join(dir, "base", "file.txt"), []byte("from python"), 0o644)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	l.Close()
	service := exec.Command(python, "-c", `
import sys, http.server
class H(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503 if self.path.endswith("503") else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H)
print("ready", flush=True)
s.serve_forever()`, port)
	service.Dir = dir
	ready, err := service.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { service.Process.Kill(); service.Wait() }()
	if line, err := bufio.NewReader(ready).ReadString('\n'); err != nil || line != "ready\n" {
		t.Skipf("python says %q, %v", line, err)
	}
	n := newNetwork(t).carriesTo("http://" + address + "/base").serve()
	if r, text := n.do("GET", "file.txt", nil); r.StatusCode != 200 || text != "from python" {
		t.Errorf("%d %q", r.StatusCode, text)
	}
	if r, text := n.do("POST", "x", strings.NewReader("hello")); r.StatusCode != 200 || text != "hello" {
		t.Errorf("%d %q", r.StatusCode, text)
	}
	if r, text := n.do("GET", "none", nil); r.StatusCode != 404 || !strings.Contains(text, "File not found") || r.Header.Get("Msl-Error") != "" {
		t.Errorf("%d %q", r.StatusCode, text)
	}
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl")
	}
	for path, want := range map[string]string{"none": "404", "file.txt": "200"} {
		out, err := exec.Command(curl, "-sS", "-o", os.DevNull, "-w", "%{http_code}", n.base+path).CombinedOutput()
		if string(out) != want || err != nil {
			t.Errorf("curl %s: %q, %v", path, out, err)
		}
	}
	big := strings.Repeat("x", 300_000) // curl asks first, by Expect
	posting := exec.Command(curl, "-sS", "--data-binary", "@-", "-H", "Expect: 100-continue", "-w", " %{http_code}", n.base+"503")
	posting.Stdin = strings.NewReader(big)
	if out, err := posting.CombinedOutput(); string(out) != big+" 503" || err != nil {
		t.Errorf("curl POST: %d bytes, %v", len(out), err)
	}
}
