package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
)

const newToken = `"msg":"new master token"`

// TestAgentShares has many programs send at once. They need one session, which survives a
// restart of the agent.
func TestAgentShares(t *testing.T) {
	s := newSite(t)
	config := s.device()
	a := s.agent(config)
	programs(a, 120)
	if n := s.messages.Load(); n < 120 || n > 121 { // one may be a handshake
		t.Errorf("%d messages for 120 requests", n)
	}
	programs(a, 40, "Msl-Non-Replayable: true")
	if n := a.log.count(newToken); n != 1 {
		t.Errorf("%d sessions", n)
	}
	a.stop()
	again := s.agent(config)
	again.answers("again")
	if n := again.log.count(newToken); n != 0 {
		t.Error("the session did not last")
	}
	if strings.Contains(a.log.String()+again.log.String(), "message 1") {
		t.Error("a payload is in the log")
	}
}

// programs sends many requests at once.
func programs(a *running, n int, headers ...string) {
	var all sync.WaitGroup
	for i := range n {
		size := 50 * i
		if i%20 == 19 {
			size = 1000 * i // of several chunks
		}
		all.Go(func() { a.answers(fmt.Sprintf("message %d %s", i, strings.Repeat("x", size)), headers...) })
	}
	all.Wait()
}

// TestAgentOutage has programs send while the server cannot be reached: a few lines say so, and not
// one for each request.
func TestAgentOutage(t *testing.T) {
	s := newSite(t)
	a := s.agent(s.device("client:", "  url: http://127.0.0.1:1/", "  psk: camera.psk", "  server-key: server.pem", "  agent: {listen: '127.0.0.1:0'}"))
	for range 30 {
		if r, _ := a.post("x"); r.StatusCode != http.StatusBadGateway {
			t.Fatalf("status %d", r.StatusCode)
		}
	}
	a.stop()
	log := a.log.String()
	if n := strings.Count(log, `"msg":"no complete answer","fault":"server","status":502`); n < 1 || n > 10 {
		t.Errorf("%d lines", n)
	}
	if !strings.Contains(log, `"msg":"no complete answer","more":2`) {
		t.Error("nothing tells how many there were")
	}
}

func TestAgentHeaders(t *testing.T) {
	s := newSite(t)
	s.command("user", "add", "ada@example.com", "--password-source", "file:"+s.path("password"))
	a := s.agent(s.device("client:", "  url: "+s.url, "  psk: camera.psk", "  server-key: server.pem",
		"  agent: {listen: '127.0.0.1:0', users: {ada@example.com: 'file:password', eve@example.com: 'file:pin'}}"))
	r, _ := a.post("x")
	if id := r.Header.Get("Msl-Message-Id"); id == "" || r.Header.Get("Msl-Identity") != "server" {
		t.Errorf("headers of the response: %v", r.Header)
	}
	a.answers("for a user", "Msl-User: ada@example.com")
	a.answers("for a user", "Msl-User: ada%40example.com", "Msl-Non-Replayable: true")
	if r, text := a.post("x", "Msl-No-Answer: true"); r.StatusCode != http.StatusAccepted || text != "" {
		t.Errorf("no answer: status %d, %q", r.StatusCode, text)
	}
	r, text := a.post("x", "Msl-User: eve@example.com")
	a.refuses(403, false, "check the", r, text)
	if !strings.Contains(text, `"response":"USERDATA_REAUTH"`) && !strings.Contains(text, `"response":"USER_REAUTH"`) {
		t.Errorf("a wrong password: %s", text)
	}
	a.answers("and all goes on")
	if log := a.log.String(); strings.Contains(log, "correct horse") {
		t.Error("the password is in the log")
	}
}

// TestAgentSettings has the agent's settings refuse requests: the program and the log are
// told which.
func TestAgentSettings(t *testing.T) {
	s := newSite(t)
	a := s.agent(s.device("client:", "  url: "+s.url, "  psk: camera.psk", "  server-key: server.pem",
		"  agent: {listen: 'localhost:0', body: 1000, timeout: 0s}"))
	a.answers("without a bound")
	for _, c := range []struct {
		data   string
		header string
		status int
		want   string
	}{
		{strings.Repeat("x", 1001), "Content-Type: text/plain", 413, "the body has more than 1000 bytes, which client.agent.body permits"},
		{"x", "Msl-User: root", 403, "the agent does not send for the user root: add them to client.agent.users"},
		{"x", "Origin: http://127.0.0.1", 403, "web pages"},
		{"x", "Host: evil.example.com", 403, "Host"},
	} {
		r, text := a.post(c.data, c.header)
		a.refuses(c.status, false, c.want, r, text)
		if log := `"error":"` + c.want + `"`; strings.Contains(c.want, "client.agent") && a.log.count(log) != 1 {
			t.Errorf("the log does not have %s: %s", log, a.log)
		}
	}
	head := "POST / HTTP/1.1\r\nHost: localhost\r\nMsl-User: " + strings.Repeat("x", 64<<10) + "\r\n\r\n"
	if answer := rawExchange(t, a.base, head); !strings.HasPrefix(answer, "HTTP/1.1 431 ") {
		t.Errorf("a long header: %q", answer)
	}
	for _, base := range []string{a.base, s.address} {
		if answer := rawExchange(t, base, "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 40") {
			t.Errorf("net/http answers for %s: %q", base, answer)
		}
	}
}

// TestAgentNoBody permits no data at all.
func TestAgentNoBody(t *testing.T) {
	s := newSite(t)
	a := s.agent(s.device("client:", "  url: "+s.url, "  psk: camera.psk", "  server-key: server.pem", "  agent: {listen: 'unix:agent.sock', body: 0}"))
	a.answers("")
	r, text := a.post("x")
	a.refuses(413, false, "more than 0 bytes, which client.agent.body permits", r, text)
}

// rawExchange sends bytes, and returns what comes until the connection ends.
func rawExchange(t *testing.T, base, sent string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(base, "http://"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, sent) // may fail, where the answer comes before the end
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// TestAgentExplains lets something other than a server answer: the program is told what to
// do about it, once.
func TestAgentExplains(t *testing.T) {
	s := newSite(t)
	page := ""
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, page)
	}))
	defer other.Close()
	a := s.agent(s.device("client:", "  url: "+other.URL, "  psk: camera.psk", "  server-key: server.pem", "  agent: {listen: 'unix:agent.sock'}"))
	for _, c := range []struct{ page, want string }{
		{"{", "the server's answer ends within its header: try again, and check the URL"},
		{"<!doctype html><title>Sign in</title>", "answered HTML, not MSL: check the URL"},
		{"", "the server answered with an empty body, not MSL: check the URL"},
	} {
		page = c.page
		r, text := a.post("x")
		a.refuses(502, false, c.want, r, text)
		if strings.Count(text, "check the URL") != 1 {
			t.Errorf("%q: %s", c.page, text)
		}
	}
}

func TestAgentServerRestart(t *testing.T) {
	s := newSite(t)
	a := s.agent(s.device())
	a.answers("before")
	for range 2 {
		s.stop()
		r, text := a.post("meanwhile")
		want := "connection refused"
		if !strings.Contains(text, want) { // on a connection of before
			want = "closed the connection without an answer"
		}
		a.refuses(502, true, want, r, text)
		s.serve()
		a.answers("after")
	}
	s.command("entity", "revoke", "camera")
	r, text := a.post("revoked")
	a.refuses(403, false, "revoked", r, text)
	s.command("entity", "unrevoke", "camera")
	a.answers("unrevoked")
}

// post ADDRESS BODY [HEADER…] sends a request to an agent, and prints the status and
// the body of the response.
func post(ts *testscript.TestScript, _ bool, args []string) {
	a := &http.Transport{DisableKeepAlives: true}
	at := args[0]
	if path, ok := config.CutUnix(at); ok {
		at = "http://agent/"
		a.DialContext = func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", ts.MkAbs(path)) }
	}
	r, err := http.NewRequest(http.MethodPost, at, strings.NewReader(args[1]))
	ts.Check(err)
	for _, h := range args[2:] {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	response, err := (&http.Client{Transport: a}).Do(r)
	ts.Check(err)
	defer response.Body.Close()
	fmt.Fprintln(ts.Stdout(), response.StatusCode)
	_, err = io.Copy(ts.Stdout(), response.Body)
	ts.Check(err)
}
