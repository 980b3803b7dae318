package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
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

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/internal/porttest"
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
	messages atomic.Int64 // that reached the server
	url      string
	address  string // of the server behind
	stop     func() // stops it
}

// prepared are the files of a site before its server starts. They are made once, as
// each command takes a fifth of a second for the passphrase alone.
var prepared struct {
	once  sync.Once
	files map[string]string
}

func newSite(t *testing.T) *site {
	s := &site{T: t, dir: t.TempDir(), address: porttest.Address(t)}
	prepared.once.Do(func() { prepared.files = s.prepare() })
	for name, text := range prepared.files {
		s.write(name, text)
	}
	s.serve()
	s.count()
	return s
}

func (s *site) prepare() map[string]string {
	s.Helper()
	s.write("pin", "pass")
	s.write("password", "correct horse")
	s.write("server.yaml", "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\nserver: {state: server.db, custody: imported}\n")
	s.command("key", "create", "--set", "server")
	s.write("server.pem", s.command("key", "show", "msl-identity", "--public"))
	s.command("entity", "add", "camera", "--generate-psk", s.path("camera.psk"))
	files := map[string]string{}
	for _, name := range []string{"pin", "password", "server.yaml", "server.keys", "server.pem", "server.db", "camera.psk"} {
		text, err := os.ReadFile(s.path(name))
		if err != nil {
			s.Fatal(err)
		}
		files[name] = string(text)
	}
	return files
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
	if code := runCheaply(args, nil, &out, &trouble); code != 0 {
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
	go func() { ended <- run(ctx, &program{defaults: cheap, stdout: io.Discard, stderr: log}, file) }()
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

// serve starts the server.
func (s *site) serve() {
	s.Helper()
	_, _, s.stop = s.started(func(ctx context.Context, p *program, ready string) error {
		p.flags.config = s.path("server.yaml")
		return runServer(p, ctx, serveFlags{listen: s.address, readyFile: ready, logFormat: "json"})
	})
}

// count puts a proxy before the server that counts messages.
func (s *site) count() {
	target, err := url.Parse("http://" + s.address)
	if err != nil {
		s.Fatal(err)
	}
	// A server that stops is seen as a broken connection, as without a proxy.
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

func (s *site) agent(file string) *running {
	s.Helper()
	at, log, stop := s.started(func(ctx context.Context, p *program, ready string) error {
		p.flags.config = file
		return runAgent(p, ctx, nil, config.Client{}, agentFlags{readyFile: ready, logFormat: "json", verbose: true})
	})
	a := &running{site: s, log: log, stop: stop, base: at}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	if path, ok := config.CutUnix(at); ok {
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

// answers checks that data comes back.
func (a *running) answers(data string, headers ...string) {
	a.Helper()
	if r, text := a.post(data, headers...); r.StatusCode != http.StatusOK || text != data {
		a.Errorf("status %d, %d bytes for %d: %.300s", r.StatusCode, len(text), len(data), text)
	}
}

// refuses asks for a status, and for a text that says why.
func (a *running) refuses(status int, again bool, want string, r *http.Response, text string) {
	a.Helper()
	var body struct{ Error string }
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		a.Errorf("%q: %v", text, err)
	}
	if r.StatusCode != status || (r.Header.Get("Retry-After") != "") != again || !strings.Contains(body.Error, want) {
		a.Errorf("status %d, Retry-After %q, %q: want %d, %q", r.StatusCode, r.Header.Get("Retry-After"), body.Error, status, want)
	}
}
