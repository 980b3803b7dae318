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
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/porttest"
)

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

// TestHTTPEvents measures how long events take from the service to the program: the slowest
// server-sent one, and the median of those of a plain stream, which wait for a pause. A busy
// machine delays one or another: what is late in one stream must be in time in another.
func TestHTTPEvents(t *testing.T) {
	sent := make(chan time.Time, 1)
	next, ended := make(chan struct{}), make(chan struct{}, 10)
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }() // before the next stream waits for next
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
	stream := func(kind string) (took []time.Duration) {
		r, err := http.NewRequest("GET", n.base, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", kind)
		response, err := n.web.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { response.Body.Close(); <-ended }()
		for i := range 8 {
			next <- struct{}{}
			if _, err := io.ReadFull(response.Body, make([]byte, 9)); err != nil {
				t.Fatalf("event %d: %v", i, err)
			}
			took = append(took, time.Since(<-sent))
			time.Sleep(200 * time.Millisecond) // the stream goes on for longer than a request may take
		}
		return took
	}
	for kind, at := range map[string]int{"text/event-stream": 7, "text/plain": 4} {
		best, judged := slices.Repeat([]time.Duration{time.Hour}, 8), time.Hour
		for try := 0; try < 5 && judged > 100*time.Millisecond; try++ {
			for i, d := range stream(kind) {
				best[i] = min(best[i], d)
			}
			t.Logf("%s: the events took %v", kind, best)
			judged = slices.Sorted(slices.Values(best))[at]
		}
		if judged > 100*time.Millisecond {
			t.Errorf("%s: an event took %v", kind, judged)
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
		if chunked && os.Getenv("MSL_SOAK") == "" {
			data = data[:size/8]
		}
		if got := writeThenRead(t, path, data, chunked); !bytes.Equal(got, data) {
			t.Errorf("chunked %v: %d bytes of %d", chunked, len(got), len(data))
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
	address := porttest.Address(t)
	_, port, _ := net.SplitHostPort(address)
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
