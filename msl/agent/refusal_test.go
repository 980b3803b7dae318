package agent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func TestRefuses(t *testing.T) {
	n := newNetwork(t)
	n.handler.MaxBody = 1000
	n.serve()
	for name, test := range map[string]struct {
		method, path, body string
		headers            []string
		status             int
		want               string
	}{
		"GET":               {"GET", "", "", nil, 405, "POST"},
		"PUT":               {"PUT", "", "x", nil, 405, "POST"},
		"another path":      {"POST", "api", "x", nil, 404, "one server"},
		"a query":           {"POST", "?a=b", "x", nil, 404, "query"},
		"an unknown header": {"POST", "", "x", []string{"Msl-Nonreplayable: true"}, 400, "Msl-Nonreplayable"},
		"a wrong value":     {"POST", "", "x", []string{"Msl-Non-Replayable: 1"}, 400, "true or false"},
		"a header twice":    {"POST", "", "x", []string{"Msl-No-Answer: true", "Msl-No-Answer: false"}, 400, "repeated"},
		"a wrong escape":    {"POST", "", "x", []string{"Msl-User: %zz"}, 400, "percent"},
		"another's user":    {"POST", "", "x", []string{"Msl-User: root"}, 403, "for the user root"},
		"a line break":      {"POST", "", "x", []string{"Msl-User: a%0d%0aMsl-No-Answer: true"}, 403, `a\u000d\u000aMsl`},
		"another host":      {"POST", "", "x", []string{"Host: evil.example.com"}, 403, "Host"},
		"host by number":    {"POST", "", "x", []string{"Host: 192.0.2.1:80"}, 403, "Host"},
		"a web page":        {"POST", "", "x", []string{"Origin: http://127.0.0.1"}, 403, "web pages"},
		"a page of its own": {"POST", "", "x", []string{"Sec-Fetch-Site: none"}, 403, "web pages"},
		"a long body":       {"POST", "", strings.Repeat("x", 1001), nil, 413, "1000 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			r, text := n.do(test.method, test.path, strings.NewReader(test.body), test.headers...)
			wanted{test.status, false, test.want}.check(t, r, text)
			if allow := r.Header.Get("Allow"); (allow == http.MethodPost) != (test.status == 405) {
				t.Errorf("Allow: %q", allow)
			}
		})
	}
	for _, host := range []string{"localhost", "127.0.0.1", "127.8.8.8:1", "[::1]:80", "[::1]"} {
		n.echoes("x", "Host: "+host)
	}
	n.echoes("and all goes on")
	hurried := newNetwork(t) // which answers nothing else, whatever the time that it takes
	hurried.handler.Timeout = 500 * time.Millisecond
	hurried.serve()
	in, out := io.Pipe()
	defer out.Close()
	r, text := hurried.do("POST", "", in)
	wanted{408, false, "in time"}.check(t, r, text)
}

// TestRefusesOnTheWire sends requests that no HTTP client sends. Nothing that follows
// such a request is taken for another one.
func TestRefusesOnTheWire(t *testing.T) {
	n := newNetwork(t)
	n.handler.MaxBody = 1000
	n.serve()
	n.echoes("a session")
	hurried := newNetwork(t) // which needs no session, whatever the time that it takes
	hurried.handler.Timeout = 500 * time.Millisecond
	hurried.serve()
	const head = "POST / HTTP/1.1\r\nHost: localhost\r\n"
	for name, test := range map[string]struct{ sent, want string }{
		"no chunk":   {head + "Transfer-Encoding: chunked\r\n\r\nno chunk\r\n" + head + "Content-Length: 0\r\n\r\n", "400 "},
		"too long":   {head + "Content-Length: 5000\r\n\r\n" + strings.Repeat("x", 2000) + head + "Content-Length: 0\r\n\r\n", "413 "},
		"a header":   {head + "Content-Length: 5\r\nMsl-Foo: x\r\n\r\n" + head, "400 "},
		"from a web": {head + "Content-Length: 5\r\nOrigin: null\r\nConnection: close\r\n\r\nabcde", "403 "},
	} {
		t.Run(name, func(t *testing.T) {
			answer := exchangeRaw(t, n.address(), test.sent)
			if !strings.HasPrefix(answer, "HTTP/1.1 "+test.want) || strings.Contains(answer, "HTTP/1.1 200") {
				t.Errorf("got %q", answer)
			}
		})
	}
	t.Run("no end", func(t *testing.T) {
		if answer := exchangeRaw(t, hurried.address(), head+"Content-Length: 500\r\n\r\nx"); !strings.HasPrefix(answer, "HTTP/1.1 408 ") {
			t.Errorf("got %q", answer)
		}
	})
	n.echoes("and all goes on")
}

// address is that of the agent.
func (n *network) address() string {
	return strings.TrimSuffix(strings.TrimPrefix(n.base, "http://"), "/")
}

// exchangeRaw sends bytes, and returns all that comes until the connection ends.
func exchangeRaw(t *testing.T, at, sent string) string {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, sent) // may fail if the answer comes before the end
	answer, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection stays: %q", answer)
	}
	return string(answer)
}

// TestUnixSocket has no web page connect: any host will do, but a page's headers will
// not.
func TestUnixSocket(t *testing.T) {
	n := newNetwork(t)
	n.serveUnix()
	n.echoes("x")
	n.echoes("x", "Host: device.example.com")
	r, text := n.post("x", "Origin: http://device.example.com")
	wanted{403, false, "web pages"}.check(t, r, text)
}

// TestExplain adds advice to an error, and gives another one its own status.
func TestExplain(t *testing.T) {
	n := newNetwork(t)
	n.handler.MaxBody = 10
	n.handler.Explain = func(err error) error {
		var user *UserError
		if errors.As(err, &user) {
			return &StatusError{http.StatusTeapot, 7, fmt.Errorf("%w:\nthey drink tea", err)}
		}
		var body *BodyError
		if errors.As(err, &body) && body.Limit == 10 {
			return fmt.Errorf("%w, which is enough", err)
		}
		return err
	}
	n.serve()
	r, text := n.post("x", "Msl-User: root")
	wanted{http.StatusTeapot, true, "root:; they drink tea"}.check(t, r, text)
	if again := r.Header.Get("Retry-After"); again != "7" {
		t.Errorf("Retry-After %q", again)
	}
	r, text = n.post(strings.Repeat("x", 11))
	wanted{413, false, "10 bytes, which is enough"}.check(t, r, text)
	r, text = n.post("x", "Msl-X: y")
	wanted{400, false, "unknown header Msl-X"}.check(t, r, text)
	for _, e := range n.reported() {
		if e.Status < 400 || strings.Contains(e.Err.Error(), "tea") {
			t.Errorf("reported %+v", e)
		}
	}
}
