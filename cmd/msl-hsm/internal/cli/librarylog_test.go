package cli

import (
	"bytes"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLibraryLog has a service whose Content-Length is too small: net/http quotes the rest of
// the answer, which must not be in the log.
func TestLibraryLog(t *testing.T) {
	lines := make(chan string, 10)
	flags, output := log.Flags(), log.Writer()
	defer func() { log.SetFlags(flags); log.SetOutput(output) }()
	log.SetFlags(0)
	log.SetOutput(libraryLog{slog.New(slog.NewJSONHandler(lineWriter(lines), nil))})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Read(make([]byte, 1000))
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok the secret \"of\" ada")
		conn.Read(make([]byte, 1000)) // until the other side closes
	}()
	r, err := (&http.Client{Transport: &http.Transport{}}).Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, r.Body)
	r.Body.Close()
	for told := false; !told; {
		select {
		case line := <-lines:
			told = strings.Contains(line, `"msg":"network library"`) && strings.Contains(line, "Content-Length")
			if strings.Contains(line, "ada") {
				t.Error(line)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("net/http says nothing")
		}
	}
	log.SetOutput(output)
	var out bytes.Buffer
	libraryLog{slog.New(slog.NewJSONHandler(&out, nil))}.Write([]byte("http: bad thing \"secret\" was sent\n"))
	if line := out.String(); !strings.Contains(line, "bad thing") || strings.Contains(line, "secret") {
		t.Error(line)
	}
}

// A lineWriter passes on each Write.
type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- string(bytes.Clone(p))
	return len(p), nil
}

// TestLibraryLogForm has the lines of libraries in the form that the log of a server has.
func TestLibraryLogForm(t *testing.T) {
	skipWithRace(t)
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	told := make(chan bool, 10)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok more")
		conn.Read(make([]byte, 1)) // until the other side closes, once it has told
		told <- true
	}))
	dir := t.TempDir()
	write(t, dir, "pin", "passphrase\n")
	write(t, dir, "msl-hsm.yaml", "keystore: {uri: \"soft:keys\", pin: \"file:pin\"}\nserver: {state: s.db, listen: \"127.0.0.1:0\", upstream: {url: \"http://"+l.Addr().String()+"\"}}\nclient: {psk: camera.psk, server-key: server.pem, state: camera.db}\n")
	run := func(args ...string) []byte {
		t.Helper()
		c := exec.Command("msl-hsm", args...)
		c.Dir = dir
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out
	}
	run("key", "create", "--set", "server")
	write(t, dir, "server.pem", string(run("key", "show", "msl-identity", "--public")))
	run("entity", "add", "camera", "--generate-psk", "camera.psk")
	c := launch(t, dir, "serve", "--log-format", "text", "--ready-file", "ready")
	await(t, "the server", func() bool { _, err := os.Stat(filepath.Join(dir, "ready")); return err == nil || len(c.ended) > 0 })
	url, err := os.ReadFile(filepath.Join(dir, "ready"))
	if err != nil {
		t.Fatal(err)
	}
	run("send", strings.TrimSpace(string(url)), "--data", "hello")
	await(t, "what net/http says", func() bool { return len(told) > 0 })
	c.signal(os.Interrupt)
	if <-c.ended; !strings.Contains(c.stderr.String(), `msg="network library"`) || strings.Contains(c.stderr.String(), "{") {
		t.Error(c.stderr.String())
	}
}
