package mslhttp

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

// startHTTP2 serves HTTP/2 over TLS, within bounds.
func startHTTP2(t testing.TB, s *TLSServer, bounds *Connections, handler http.Handler) (string, *http.Server) {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.HTTP2 = true
	l, err := s.Listen(bounds.Listen(raw))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return TLSContext(bounds.Context(ctx, c), c)
	}}
	AllowHTTP2(server)
	ended := make(chan struct{})
	go func() { server.Serve(l); close(ended) }()
	t.Cleanup(func() { server.Close(); <-ended })
	return raw.Addr().String(), server
}

// http2Client returns a client of a server called "server".
func http2Client(t testing.TB, a *authority, http2 bool) *http.Client {
	t.Helper()
	transport, err := (&TLSClient{Roots: a.pool(), ServerName: "server", HTTP2: http2}).RoundTripper()
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: transport}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func versionHandler(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	fmt.Fprintf(w, "%s %s %s", r.Proto, r.TLS.NegotiatedProtocol, tls.VersionName(r.TLS.Version))
}

// TestHTTP2Agreed has clients with and without HTTP/2, at servers with and without.
func TestHTTP2Agreed(t *testing.T) {
	a := newAuthority(t)
	own := TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}}
	with, without := own, own
	addr, _ := startHTTP2(t, &with, &Connections{}, http.HandlerFunc(versionHandler))
	old := startHandler(t, &without, http.HandlerFunc(versionHandler))
	for _, c := range []struct {
		addr  string
		http2 bool
		want  string
	}{
		{addr, true, "HTTP/2.0 h2 TLS 1.3"}, {addr, false, "HTTP/1.1 http/1.1 TLS 1.3"},
		{old, true, "HTTP/1.1 http/1.1 TLS 1.3"}, {old, false, "HTTP/1.1 http/1.1 TLS 1.3"},
	} {
		client := http2Client(t, a, c.http2)
		for range 2 {
			if got, err := fetch(client, c.addr); got != c.want || err != nil {
				t.Errorf("%v: %q, %v", c.http2, got, err)
			}
			answer, err := client.Post("https://"+c.addr+"/", "", io.MultiReader(bytes.NewReader([]byte("a body without a length"))))
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
		}
	}
	// A client that agreed on HTTP/1.1 must not speak HTTP/2.
	conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: a.pool(), ServerName: "server", NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	liar := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return struct{ net.Conn }{conn}, nil }, Protocols: &http.Protocols{}}
	liar.Protocols.SetUnencryptedHTTP2(true)
	defer liar.CloseIdleConnections()
	answer, err := (&http.Client{Transport: liar}).Get("https://" + addr + "/")
	if err != nil || answer.StatusCode != http.StatusHTTPVersionNotSupported {
		t.Errorf("%v, %v", answer, err)
	}
}

// TestHTTP2Curl asks with curl, where there is one.
func TestHTTP2Curl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip(err)
	}
	a := newAuthority(t)
	addr, _ := startHTTP2(t, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}}, &Connections{}, http.HandlerFunc(versionHandler))
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	for flag, want := range map[string]string{"--http2": "HTTP/2.0 h2", "--http1.1": "HTTP/1.1 http/1.1"} {
		out, err := exec.Command(curl, "-sS", flag, "--cacert", roots, "--resolve", "server:"+port+":127.0.0.1", "--data", "x", "https://server:"+port+"/").CombinedOutput()
		if err != nil || !bytes.HasPrefix(out, []byte(want)) {
			t.Errorf("%s: %s, %v", flag, out, err)
		}
	}
}

// TestHTTP2Alerts has a client that does not trust the server: the alert is reported.
func TestHTTP2Alerts(t *testing.T) {
	a := newAuthority(t)
	var alerts tlsalert.Counter
	var seen events
	addr, _ := startHTTP2(t, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}, Alerts: &alerts, Report: seen.note}, &Connections{}, http.HandlerFunc(versionHandler))
	if _, err := fetch(http2Client(t, newAuthority(t), true), addr); err == nil {
		t.Error("a server of another authority is trusted")
	}
	if got := seen.await(t); got[0].Alert != tlsalert.BadCertificate || got[0].Origin != tlsalert.Received {
		t.Errorf("%+v", got)
	}
}

// TestHTTP2Streams echoes big messages in both directions at once, beside requests that
// nobody reads: these stop no other.
func TestHTTP2Streams(t *testing.T) {
	a := newAuthority(t)
	release := make(chan struct{})
	addr, _ := startHTTP2(t, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}}, &Connections{},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				<-release
				return
			}
			io.Copy(w, r.Body)
		}))
	client := http2Client(t, a, true)
	var slow, all sync.WaitGroup
	for range 8 {
		slow.Go(func() {
			answer, err := client.Post("https://"+addr+"/slow", "", bytes.NewReader(make([]byte, 1<<20)))
			if err == nil {
				answer.Body.Close()
			}
		})
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	for range 4 {
		all.Go(func() {
			answer, err := client.Post("https://"+addr+"/", "", bytes.NewReader(big))
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			if got, err := io.ReadAll(answer.Body); err != nil || !bytes.Equal(got, big) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
	close(release)
	slow.Wait()
}

// TestHTTP2Budget counts streams as connections: what is too many gets HTTP 503, and
// neither ends the connection nor counts afterwards.
func TestHTTP2Budget(t *testing.T) {
	a := newAuthority(t)
	bounds := &Connections{Max: 8, PerSource: 3}
	entered, release := make(chan struct{}), make(chan struct{})
	addr, _ := startHTTP2(t, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}}, bounds,
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u, ok := beginExchange(r.Context(), "")
			if !ok {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			defer u.end()
			entered <- struct{}{}
			<-release
		}))
	client := http2Client(t, a, true)
	status := func() int {
		answer, err := client.Get("https://" + addr + "/")
		if err != nil {
			t.Error(err)
			return 0
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	for range 2 { // the second time shows that nothing was left counted
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if got := status(); got != http.StatusOK {
					t.Error(got)
				}
			})
			<-entered
		}
		if got := status(); got != http.StatusServiceUnavailable {
			t.Errorf("a fourth stream: %d", got)
		}
		for range 3 {
			release <- struct{}{}
		}
		all.Wait()
	}
	bounds.mu.Lock()
	defer bounds.mu.Unlock()
	if bounds.streams != 0 || bounds.all.Len() != 1 {
		t.Errorf("%d streams, %d connections", bounds.streams, bounds.all.Len())
	}
}

// TestHTTP2Shutdown lets streams end, and takes no new ones.
func TestHTTP2Shutdown(t *testing.T) {
	a := newAuthority(t)
	entered, release := make(chan struct{}), make(chan struct{})
	addr, server := startHTTP2(t, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}}, &Connections{},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			entered <- struct{}{}
			<-release
			io.WriteString(w, "whole")
		}))
	client := http2Client(t, a, true)
	got := make(chan string, 1)
	go func() {
		text, err := fetch(client, addr)
		got <- fmt.Sprint(text, err)
	}()
	<-entered
	down := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() { down <- server.Shutdown(ctx) }()
	for { // until the listener is closed
		c, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		c.Close()
	}
	close(release)
	if text := <-got; text != "whole<nil>" {
		t.Error(text)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
}

// TestMSLOverHTTP2 exchanges messages, short and long ones.
func TestMSLOverHTTP2(t *testing.T) {
	a := newAuthority(t)
	o := newOverTLS(t, a, func(s *TLSServer, h http.Handler) string {
		addr, _ := startHTTP2(t, s, &Connections{}, h)
		return addr
	})
	client := http2Client(t, a, true)
	o.client.Transport = &Transport{URL: "https://" + o.addr + "/", Client: client}
	big := string(bytes.Repeat([]byte("0123456789abcdef"), 1<<17))
	for _, text := range []string{"one", "two", big} {
		if got, _, err := o.send(t.Context(), text); got != text || err != nil {
			t.Errorf("%d of %d bytes, %v", len(got), len(text), err)
		}
	}
}

// BenchmarkHTTPVersions compares the two versions of HTTP over TLS in one run.
func BenchmarkHTTPVersions(b *testing.B) {
	a := newAuthority(b)
	addr, _ := startHTTP2(b, &TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}}, &Connections{},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	for _, size := range []int{1 << 10, 1 << 20} {
		for _, http2 := range []bool{false, true} {
			client := http2Client(b, a, http2)
			b.Run(fmt.Sprintf("%d bytes, HTTP/2 %v", size, http2), func(b *testing.B) {
				b.SetBytes(int64(size))
				for b.Loop() {
					answer, err := client.Post("https://"+addr+"/", "", bytes.NewReader(make([]byte, size)))
					if err != nil {
						b.Fatal(err)
					}
					io.Copy(io.Discard, answer.Body)
					answer.Body.Close()
				}
			})
		}
	}
}

// TestHTTP2EarlyAnswer refuses requests before their end: the stream ends with the answer, although
// the client sends no more until then.
func TestHTTP2EarlyAnswer(t *testing.T) {
	a := newAuthority(t)
	o := newOverTLS(t, a, func(s *TLSServer, next http.Handler) string {
		next.(*Handler).MaxBody = 64
		addr, _ := startHTTP2(t, s, &Connections{}, next)
		return addr
	})
	for begin, want := range map[string]int{"no message": http.StatusOK, strings.Repeat("x", 100): http.StatusRequestEntityTooLarge} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		body, more := io.Pipe()
		go io.WriteString(more, begin)
		defer more.Close()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+o.addr+"/", body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http2Client(t, a, true).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != want {
			t.Errorf("%q: %s, %q, %v", begin, answer.Status, text, err)
		}
	}
}

// TestHTTP2Timeout lets the time of one stream end: its client gets an answer, and the connection
// goes on.
func TestHTTP2Timeout(t *testing.T) {
	a := newAuthority(t)
	o := newOverTLS(t, a, func(s *TLSServer, next http.Handler) string {
		h := next.(*Handler)
		echo := h.Handle
		h.Timeout = 400 * time.Millisecond
		h.Handle = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			if m.MessageID%2 == 0 { // see below
				return echo(ctx, w, m)
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}
		addr, _ := startHTTP2(t, s, &Connections{}, h)
		return addr
	})
	var dialed atomic.Int64
	client := http2Client(t, a, true)
	h2 := client.Transport.(*HTTP2Transport).http2
	dial := h2.DialTLSContext
	h2.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialed.Add(1)
		return dial(ctx, network, addr)
	}
	o.client.Transport = &Transport{URL: "https://" + o.addr + "/", Client: client}
	seen := map[bool]int{} // by success: the first number of a message is random
	for try := 0; (seen[true] == 0 || seen[false] == 0) && try < 100; try++ {
		got, _, err := o.send(t.Context(), "x")
		var peer *msl.PeerError
		if err != nil && !errors.As(err, &peer) || err == nil && got != "x" {
			t.Fatalf("%q, %v", got, err)
		}
		seen[err == nil]++
	}
	if got, err := o.client.Do(t.Context(), &msl.Request{Encrypted: true, Authenticated: true}); err == nil {
		got.Body.Close()
	}
	if dialed.Load() != 1 || seen[true] == 0 || seen[false] == 0 {
		t.Errorf("%d connections, %v", dialed.Load(), seen)
	}
}
