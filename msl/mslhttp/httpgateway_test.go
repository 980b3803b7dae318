package mslhttp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/httpform"
)

func httpGateway(t *testing.T, at Target) *msl.Client {
	t.Helper()
	u := &Upstream{Targets: []Target{at}}
	g := &HTTPGateway{Upstream: u, Plain: (&Gateway{Upstream: u}).Handle, Rules: HTTPRules{Paths: []string{"/"}}}
	return noneClient(t, serve(t, &Handler{Handle: g.Handle}))
}

// TestHTTPGatewaySmuggling has forms that two parsers could read in two ways, and forms
// that are cut off: no service gets them as whole ones.
func TestHTTPGatewaySmuggling(t *testing.T) {
	var whole atomic.Int64
	c := httpGateway(t, service(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			whole.Add(1)
		}
	}))
	const head = "POST /x HTTP/1.1\r\nHost: \r\n"
	for name, form := range map[string]string{
		"two lengths": head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "obs-fold": head + "A: b\r\n c: d\r\n\r\n",
		"bare LF": head + "A: b\nContent-Length: 3\r\n\r\nabc", "space in a name": head + "Content-Length : 3\r\n\r\nabc",
		"absolute": "GET http://other/ HTTP/1.1\r\nHost: \r\n\r\n", "two requests": "GET /x HTTP/1.1\r\nHost: \r\n\r\nGET /y HTTP/1.1\r\nHost: \r\n\r\n",
		"cut head": "POST /x HT", "no head": "", "cut length": head + "Content-Length: 10\r\n\r\nabc", "cut chunks": head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"long body": head + "Content-Length: 3\r\n\r\nabcd", "no chunk": head + "Transfer-Encoding: chunked\r\n\r\nno chunk\r\n",
		"many fields": head + strings.Repeat("Accept: a\r\n", 300) + "\r\n", "long head": head + "Accept: " + strings.Repeat("a", 70000) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			answer, err := c.Do(t.Context(), &msl.Request{Body: msl.BytesBody([]byte(httpform.RequestLine + form))})
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			r, err := httpform.DecodeResponse(answer.Body, "POST")
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(r.Body)
			if r.StatusCode != 400 || r.Header.Get("Msl-Error") != "server" || !strings.Contains(string(text), "refused by the server") || err != nil {
				t.Errorf("%s %v %q %v", r.Status, r.Header, text, err)
			}
		})
	}
	if whole.Load() != 0 {
		t.Errorf("%d requests reached the service", whole.Load())
	}
}

// TestHTTPGatewayLength has requests that do not state their length, for services that read no
// others: they get it, if the request is not too long.
func TestHTTPGatewayLength(t *testing.T) {
	tells := service(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.ContentLength, " ", r.TransferEncoding, " ", n, " ", err)
	})
	for _, c := range []struct {
		size, buffer int
		whole        bool
		want         string
	}{
		{0, 0, true, "200 0 [] 0 <nil>"},
		{5, 0, false, "200 -1 [chunked] 5 <nil>"},
		{5, 0, true, "200 5 [] 5 <nil>"},
		{5, -1, true, "200 5 [] 5 <nil>"},
		{100_000, 0, true, "200 100000 [] 100000 <nil>"},
		{300_000, 200_000, true, `411 {"error":"refused by the server: the request does not state its length`},
	} {
		t.Run(fmt.Sprint(c.size, " ", c.buffer, " ", c.whole), func(t *testing.T) {
			u := &Upstream{Targets: []Target{tells}, Buffer: c.buffer, Whole: c.whole}
			g := &HTTPGateway{Upstream: u, Rules: HTTPRules{Paths: []string{"/"}}}
			form, err := httpform.EncodeRequest(&http.Request{
				Method: "POST", URL: &url.URL{Path: "/x"}, ContentLength: -1, Body: io.NopCloser(strings.NewReader(strings.Repeat("x", c.size))),
			})
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(form)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := ask(t, noneClient(t, serve(t, &Handler{Handle: g.Handle})), data)
			if err != nil {
				t.Fatal(err)
			}
			response, err := httpform.DecodeResponse(strings.NewReader(answer), "POST")
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(response.Body)
			if got := fmt.Sprint(response.StatusCode, " ", string(text)); !strings.HasPrefix(got, c.want) || err != nil {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// TestHTTPGatewayStated has a request that states its length, for a service that reads no others: it
// is streamed, since nothing has to be found out.
func TestHTTPGatewayStated(t *testing.T) {
	counts := service(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.ContentLength, " ", n, " ", err)
	})
	const size = 500_000
	form, err := httpform.EncodeRequest(&http.Request{
		Method: "POST", URL: &url.URL{Path: "/x"}, ContentLength: size, Body: io.NopCloser(strings.NewReader(strings.Repeat("x", size))),
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(form)
	if err != nil {
		t.Fatal(err)
	}
	g := &HTTPGateway{Upstream: &Upstream{Targets: []Target{counts}, Whole: true}, Rules: HTTPRules{Paths: []string{"/"}}}
	ahead := int64(0)
	answer, err := ask(t, noneClient(t, serve(t, &Handler{Handle: func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if _, err := g.lengthOf(m); err != nil {
			return err
		}
		ahead, _, _ = m.ReadAhead(1)
		return g.Handle(ctx, w, m)
	}})), data)
	if err != nil || !strings.HasSuffix(answer, fmt.Sprintf("%d %d <nil>", size, size)) {
		t.Errorf("%q, %v", answer, err)
	}
	if ahead > size/2 {
		t.Errorf("%d bytes were read ahead", ahead)
	}
}

// TestHTTPGatewayHostileService has a service that answers what must not come through.
func TestHTTPGatewayHostileService(t *testing.T) {
	for name, c := range map[string]struct {
		answer, method string
		status         int // 0: an error of MSL
		body           string
	}{
		"forged":      {"HTTP/1.1 200 OK\r\nMsl-Error: server\r\nMSL_ERROR: server\r\nContent-Length: 2\r\n\r\nok", "GET", 200, "ok"},
		"hop":         {"HTTP/1.1 200 OK\r\nConnection: etag\r\nEtag: x\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n\r\nok", "GET", 200, "ok"},
		"1xx":         {strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 1000), "GET", 0, ""},
		"upgrade":     {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "GET", 0, ""},
		"flood":       {"HTTP/1.1 200 OK\r\n" + strings.Repeat("Link: x\r\n", 1000) + "Content-Length: 0\r\n\r\n", "GET", 0, ""},
		"long":        {"HTTP/1.1 200 OK\r\nLink: " + strings.Repeat("x", 70000) + "\r\nContent-Length: 0\r\n\r\n", "GET", 0, ""},
		"not listed":  {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Other: x\r\n", 1000) + "Content-Length: 2\r\n\r\nok", "GET", 200, "ok"},
		"after HEAD":  {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HEAD", 200, ""},
		"after 204":   {"HTTP/1.1 204 No Content\r\n\r\nhello", "GET", 204, ""},
		"after 304":   {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", "GET", 304, ""},
		"status 0":    {"HTTP/1.1 000 x\r\nContent-Length: 0\r\n\r\n", "GET", 0, ""},
		"no HTTP":     {"hello\r\n\r\n", "GET", 0, ""},
		"two lengths": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", "GET", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go answersAlways(l, c.answer)
			target, err := ParseTarget("http://" + l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			form := fmt.Sprintf("%s%s /x HTTP/1.1\r\nHost: \r\n\r\n", httpform.RequestLine, c.method)
			answer, err := httpGateway(t, target).Do(t.Context(), &msl.Request{Body: msl.BytesBody([]byte(form))})
			var refused *msl.PeerError
			if c.status == 0 {
				if !errors.As(err, &refused) {
					t.Errorf("the error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			r, err := httpform.DecodeResponse(answer.Body, c.method)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(r.Body)
			if r.StatusCode != c.status || string(text) != c.body || err != nil {
				t.Errorf("%s %q %v", r.Status, text, err)
			}
			for name := range r.Header {
				if name != "Content-Length" {
					t.Errorf("%s came through", name)
				}
			}
		})
	}
}

// answersAlways answers every request with those bytes, and closes the connection.
func answersAlways(l net.Listener, answer string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			io.WriteString(conn, answer)
		}
		conn.Close()
	}
}
