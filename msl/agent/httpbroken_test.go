package agent

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestHTTPBrokenBeforeItsBody has a service that ends after its headers: they do not
// describe what the agent says instead.
func TestHTTPBrokenBeforeItsBody(t *testing.T) {
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Length", "100")
		h.Set("Content-Type", "text/event-stream") // whose headers are sent at once
		h.Set("Content-Encoding", "gzip")
		h.Set("Retry-After", "7")
		h.Set("Etag", "x")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}).serve()
	r, text := n.do("GET", "x", nil)
	if h := r.Header; r.StatusCode != 502 || h.Get("Msl-Error") != "agent" || h["Content-Encoding"] != nil || h["Retry-After"] != nil || h["Etag"] != nil {
		t.Errorf("%d %v %q", r.StatusCode, h, text)
	}
}

// by10 sends a request in HTTP/1.0.
func (n *network) by10(method, path string) (*http.Response, string) {
	n.Helper()
	c, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(n.base, "http://"), "/"))
	if err != nil {
		n.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "%s %s HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", method, path)
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		n.Fatal(err)
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		n.Error(err)
	}
	return r, string(text)
}

// TestHTTP10 has programs that take the end of the connection for that of the response.
func TestHTTP10(t *testing.T) {
	n := newNetwork(t).carries(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/base/broken":
			w.Write([]byte("part"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/base/long":
			io.CopyN(w, zeros{}, heldPlain+1)
		default:
			w.Write([]byte("whole"))
			w.(http.Flusher).Flush()
		}
	}).serve()
	for path, status := range map[string]int{"/broken": 502, "/long": 505, "/whole": 200} {
		r, text := n.by10("GET", path)
		if r.StatusCode != status || r.ContentLength != int64(len(text)) || status == 200 && text != "whole" {
			t.Errorf("%s: %s, length %d, %.200q", path, r.Status, r.ContentLength, text)
		}
	}
	if r, _ := n.by10("HEAD", "/whole"); r.StatusCode != 200 {
		t.Errorf("HEAD: %s", r.Status)
	}
}

// TestPlain10 is the same for data of messages.
func TestPlain10(t *testing.T) {
	n := newNetwork(t).serve()
	r, text := n.by10("POST", "/")
	if r.StatusCode != 200 || r.ContentLength != int64(len(text)) {
		t.Errorf("%s, length %d, %q", r.Status, r.ContentLength, text)
	}
}
