package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// A journal is a log that is written while it is read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) count(what string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), what)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// A site is a server with soft keys, and a device that is registered there.
type site struct {
	*testing.T
	dir      string
	messages atomic.Int64 // that came to the server
	url      string
	address  string // of the server behind
	stop     func() // stops it
}

func newSite(t *testing.T) *site {
	s := &site{T: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	s.write("pin", "pass")
	s.write("password", "correct horse")
	s.write("server.yaml", "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\nserver: {state: server.db, custody: imported}\n")
	s.command("key", "create", "--set", "server")
	s.write("server.pem", s.command("key", "show", "msl-identity", "--public"))
	s.command("entity", "add", "camera", "--generate-psk", s.path("camera.psk"))
	s.serve()
	s.count()
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string) {
	s.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
}

// command runs a verb of the server's operator.
func (s *site) command(args ...string) string {
	s.Helper()
	return s.run(append(args, "--config", s.path("server.yaml"))...)
}

func (s *site) run(args ...string) string {
	s.Helper()
	var out, trouble bytes.Buffer
	if code := run(args, nil, &out, &trouble); code != 0 {
		s.Fatalf("msl-hsm %s: exit code %d: %s", strings.Join(args, " "), code, trouble.String())
	}
	return out.String()
}

// started runs something until stop is called, and returns what it writes to its
// ready file.
func (s *site) started(run func(ctx context.Context, p *program, readyFile string) error) (ready string, log *journal, stop func()) {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log, file, ended := &journal{}, filepath.Join(s.TempDir(), "ready"), make(chan error, 1)
	go func() { ended <- run(ctx, &program{stdout: io.Discard, stderr: log}, file) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.Error(err)
		}
	})
	s.Cleanup(stop)
	for {
		if text, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(text)), log, stop
		}
		select {
		case err := <-ended:
			ended <- nil
			s.Fatalf("not started: %v\n%s", err, log)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// serve starts the server, at the address that it had before.
func (s *site) serve() {
	s.Helper()
	var at string
	at, _, s.stop = s.started(func(ctx context.Context, p *program, ready string) error {
		p.flags.config = s.path("server.yaml")
		return p.runServer(ctx, serveFlags{listen: s.address, readyFile: ready, logFormat: "json"})
	})
	s.address = strings.TrimSuffix(strings.TrimPrefix(at, "http://"), "/")
}

// count puts a proxy before the server that counts messages.
func (s *site) count() {
	target, err := url.Parse("http://" + s.address)
	if err != nil {
		s.Fatal(err)
	}
	// What stops the server is seen as the connection that it is.
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.messages.Add(1)
		http.NewResponseController(w).EnableFullDuplex()
		proxy.ServeHTTP(w, r)
	}))
	web.Start()
	s.Cleanup(web.Close)
	s.url = web.URL
}

// device is the configuration of a device, and where its agent listens.
func (s *site) device(lines ...string) string {
	s.Helper()
	text := "client:\n  url: " + s.url + "\n  psk: camera.psk\n  server-key: server.pem\n  state: device.db\n" +
		"  agent: {listen: 'unix:agent.sock', body: 3000000, timeout: 20s}\n"
	if len(lines) > 0 {
		text = strings.Join(lines, "\n") + "\n"
	}
	s.write("device.yaml", text)
	return s.path("device.yaml")
}

// A running agent.
type running struct {
	*site
	log  *journal
	stop func()
	web  *http.Client
	base string
}

func (s *site) agent(config string) *running {
	s.Helper()
	at, log, stop := s.started(func(ctx context.Context, p *program, ready string) error {
		p.flags.config = config
		return p.runAgent(ctx, nil, clientConfig{}, agentFlags{readyFile: ready, logFormat: "json", verbose: true})
	})
	a := &running{site: s, log: log, stop: stop, base: at}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	if path, ok := cutUnix(at); ok {
		a.base = "http://agent/"
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }
	}
	a.web = &http.Client{Transport: transport}
	s.Cleanup(transport.CloseIdleConnections)
	return a
}

// post sends data, and returns the status and the body of the response.
func (a *running) post(data string, headers ...string) (*http.Response, string) {
	a.Helper()
	return a.do(http.MethodPost, a.base, strings.NewReader(data), headers...)
}

func (a *running) do(method, at string, body io.Reader, headers ...string) (*http.Response, string) {
	a.Helper()
	r, err := http.NewRequest(method, at, body)
	if err != nil {
		a.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
		if name == "Host" {
			r.Host = value
		}
	}
	response, err := a.web.Do(r)
	if err != nil {
		a.Errorf("%s: %v\n%s", method, err, a.log)
		return &http.Response{}, ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		a.Errorf("read the response: %v\n%s", err, a.log)
	}
	return response, string(text)
}

// answers asks that data comes back.
func (a *running) answers(data string, headers ...string) {
	a.Helper()
	if r, text := a.post(data, headers...); r.StatusCode != http.StatusOK || text != data {
		a.Errorf("status %d, %d bytes for %d: %.300s", r.StatusCode, len(text), len(data), text)
	}
}

// refuses asks for a status, and for a text that says why.
func (a *running) refuses(status int, again bool, want string, r *http.Response, text string) {
	a.Helper()
	var body refusedRequest
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		a.Errorf("%q: %v", text, err)
	}
	if r.StatusCode != status || (r.Header.Get("Retry-After") != "") != again || !strings.Contains(body.Error, want) {
		a.Errorf("status %d, Retry-After %q, %q: want %d, %q", r.StatusCode, r.Header.Get("Retry-After"), body.Error, status, want)
	}
}

const newToken = `"msg":"new master token"`

// TestAgentShares has many programs send at once. They need one session, and nothing
// of it is lost when the agent starts again.
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
		all.Go(func() { a.answers(fmt.Sprintf("message %d %s", i, strings.Repeat("x", i*1000)), headers...) })
	}
	all.Wait()
}

// TestAgentStreams sends more than is held in memory anywhere, and gets an answer
// that begins before the request ends.
func TestAgentStreams(t *testing.T) {
	a := func() *running { s := newSite(t); return s.agent(s.device()) }()
	a.answers(strings.Repeat("0123456789abcdef", 180_000))
	a.answers("")
	in, out := io.Pipe()
	begun := make(chan struct{})
	go func() {
		out.Write(make([]byte, 1<<20))
		select {
		case <-begun:
			out.Close()
		case <-time.After(30 * time.Second):
			out.CloseWithError(errors.New("no answer came"))
		}
	}()
	response, err := a.web.Post(a.base, "text/plain", in)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.ReadFull(response.Body, make([]byte, 1<<19)); err != nil {
		t.Fatal(err)
	}
	close(begun)
	if n, err := io.Copy(io.Discard, response.Body); err != nil || n != 1<<19 {
		t.Errorf("%d bytes more, error %v", n, err)
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

func TestAgentRefuses(t *testing.T) {
	s := newSite(t)
	a := s.agent(s.device("client:", "  url: "+s.url, "  psk: camera.psk", "  server-key: server.pem",
		"  agent: {listen: 'localhost:0', body: 1000, timeout: 500ms}"))
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
		"another's user":    {"POST", "", "x", []string{"Msl-User: root"}, 403, "client.agent.users"},
		"a line break":      {"POST", "", "x", []string{"Msl-User: a%0d%0aMsl-No-Answer: true"}, 403, `a\u000d\u000aMsl`},
		"another host":      {"POST", "", "x", []string{"Host: evil.example.com"}, 403, "Host"},
		"host by number":    {"POST", "", "x", []string{"Host: 192.0.2.1:80"}, 403, "Host"},
		"a web page":        {"POST", "", "x", []string{"Origin: http://127.0.0.1"}, 403, "web pages"},
		"a page of its own": {"POST", "", "x", []string{"Sec-Fetch-Site: none"}, 403, "web pages"},
		"a long body":       {"POST", "", strings.Repeat("x", 1001), nil, 413, "1000 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			r, text := a.do(test.method, a.base+test.path, strings.NewReader(test.body), test.headers...)
			a.refuses(test.status, false, test.want, r, text)
		})
	}
	for _, host := range []string{"localhost", "127.0.0.1", "127.8.8.8:1", "[::1]:80", "[::1]"} {
		a.answers("x", "Host: "+host)
	}
	in, out := io.Pipe()
	defer out.Close()
	r, text := a.do("POST", a.base, in)
	a.refuses(408, false, "in time", r, text)

	head := "POST / HTTP/1.1\r\nHost: localhost\r\n"
	for _, test := range []struct{ sent, want string }{
		{head + "Transfer-Encoding: chunked\r\n\r\nno chunk\r\n" + head + "Content-Length: 0\r\n\r\n", "400 "},
		{head + "Content-Length: 500\r\n\r\nx", "408 "},
		{head + "Content-Length: 5000\r\n\r\n" + strings.Repeat("x", 2000) + head + "Content-Length: 0\r\n\r\n", "413 "},
		{head + "Content-Length: 5\r\nMsl-Foo: x\r\n\r\n" + head, "400 "},
		{"POST / HTTP/1.1\r\nHost: localhost\r\nMsl-User: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431 "},
	} {
		t.Run("on the wire "+test.want, func(t *testing.T) {
			answer := exchangeRaw(t, strings.TrimSuffix(strings.TrimPrefix(a.base, "http://"), "/"), test.sent)
			if !strings.HasPrefix(answer, "HTTP/1.1 "+test.want) || strings.Contains(answer, "HTTP/1.1 200") {
				t.Errorf("got %q", answer)
			}
		})
	}
	a.answers("and all goes on")
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
	io.WriteString(conn, sent) // may fail, where the answer comes before the end
	answer, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection stays: %q", answer)
	}
	return string(answer)
}

func TestAgentServerRestart(t *testing.T) {
	s := newSite(t)
	a := s.agent(s.device())
	a.answers("before")
	for range 2 {
		s.stop()
		r, text := a.post("meanwhile")
		a.refuses(502, true, "mslhttp", r, text)
		s.serve()
		a.answers("after")
	}
	s.command("entity", "revoke", "camera")
	r, text := a.post("revoked")
	a.refuses(403, false, "revoked", r, text)
	s.command("entity", "unrevoke", "camera")
	a.answers("unrevoked")
}

// TestAgentNoMessage has something else than a server answer.
func TestAgentNoMessage(t *testing.T) {
	s := newSite(t)
	status, wait := 0, make(chan struct{})
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if status == 0 {
			<-wait
			return
		}
		w.Header().Set("Retry-After", "17")
		w.WriteHeader(status)
		io.WriteString(w, "{")
	}))
	defer other.Close()
	defer close(wait)
	a := s.agent(s.device("client:", "  url: "+other.URL, "  psk: camera.psk", "  server-key: server.pem",
		"  agent: {listen: 'unix:agent.sock', timeout: 300ms}"))
	for _, test := range []struct {
		answer, status int
		again          bool
		want           string
	}{
		{503, 503, true, "try again later"}, {404, 502, false, "check that the URL"}, {200, 502, false, "message"}, {0, 504, true, "deadline"},
	} {
		status = test.answer
		r, text := a.post("x")
		a.refuses(test.status, test.again, test.want, r, text)
		if test.answer == 503 && r.Header.Get("Retry-After") != "17" {
			t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
		}
	}
}

func TestAgentStatus(t *testing.T) {
	peer := func(r msl.ResponseCode) error { return fmt.Errorf("x: %w", &msl.PeerError{Response: r, Code: -1}) }
	for _, test := range []struct {
		err    error
		status int
		again  int
	}{
		{peer(msl.Fail), 502, 0}, {peer(msl.KeyXRequired), 502, 0},
		{peer(msl.TransientFailure), 503, 1}, {peer(msl.Expired), 503, 1}, {peer(msl.Replayed), 503, 1},
		{peer(msl.EntityReauth), 403, 0}, {peer(msl.EntityDataReauth), 403, 0},
		{peer(msl.UserReauth), 403, 0}, {peer(msl.UserDataReauth), 403, 0}, {peer(msl.SSOTokenRejected), 403, 0},
		{context.DeadlineExceeded, 504, 1}, {os.ErrDeadlineExceeded, 504, 1},
		{msl.Failure(msl.ErrSignatureError, "sign", keystore.ErrUnavailable), 503, 1},
		{msl.Failure(msl.ErrSignatureError, "sign", keystore.ErrBusy), 503, 1},
		{msl.Failure(msl.ErrSignatureError, "sign", keystore.ErrForeign), 500, 0},
		{keystore.ErrPIN, 500, 0}, {keystore.ErrNotFound, 500, 0},
		{&url.Error{Op: "Post", Err: errors.New("refused")}, 502, 1},
		{&mslhttp.StatusError{Status: 503, RetryAfter: "9"}, 503, 9},
		{&mslhttp.StatusError{Status: 429, RetryAfter: "Fri, 31 Dec 1999 23:59:59 GMT"}, 503, 1},
		{&mslhttp.StatusError{Status: 500}, 502, 0},
		{&mslhttp.StatusError{Status: 413}, 413, 0},
		{msl.Failure(msl.ErrMasterTokenUntrusted, "", nil), 502, 0}, {msl.ErrTruncated, 502, 0},
		{errors.New("the disk is full"), 500, 0},
	} {
		if s := statusOf(test.err); s.status != test.status || s.again != test.again {
			t.Errorf("%v: %d after %d s, want %d after %d s", test.err, s.status, s.again, test.status, test.again)
		}
	}
}

func TestListenLocally(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listenLocally("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	if _, err := listenLocally("unix:" + path); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("a socket in use: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as one that was killed
	l.Close()
	if l, err = listenLocally("unix:" + path); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{
		"unix:" + path: "not a socket", "0.0.0.0:0": "other machines", "[::]:0": "other machines", ":0": "other machines", "192.0.2.1:80": "other machines",
		"example.com:80": "other machines", "127.0.0.1": "want unix", "unix:/nowhere/s": "no such file",
		"unix:" + path + strings.Repeat("x", 108): "107 bytes",
	} {
		if l, err := listenLocally(at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", at, l, err)
		}
	}
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	if _, err := listenLocally(""); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("nowhere: %v", err)
	}
	t.Setenv("XDG_RUNTIME_DIR", filepath.Dir(path))
	if l, err = listenLocally(""); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if at := urlOf(l); at != "unix:"+filepath.Join(filepath.Dir(path), "msl-hsm-agent.sock") {
		t.Errorf("listens at %s", at)
	}
}

// post ADDRESS BODY [HEADER…] sends a request to an agent, and prints the status and
// the body of the response.
func post(ts *testscript.TestScript, _ bool, args []string) {
	a := &http.Transport{DisableKeepAlives: true}
	at := args[0]
	if path, ok := cutUnix(at); ok {
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

// serveTPM lets processes use a TPM that the test can switch off and clear.
func serveTPM(t *testing.T, p *tpmtest.TPM) (uri string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tpm") // the address of a socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(func() { l.Close(); p.Kill(); group.Wait(); os.RemoveAll(dir) })
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			chip, err := p.Dial()
			if err != nil {
				t.Error(err)
			} else {
				group.Go(func() { io.Copy(chip, conn); chip.Close() })
				io.Copy(conn, chip)
				chip.Close()
			}
			conn.Close()
		}
	})
	return "tpm:?unix=" + l.Addr().String()
}
