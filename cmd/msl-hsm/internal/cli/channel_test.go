package cli

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// startEcho serves an echo from a new soft key store, and returns the URL of its
// WebSockets, and the flags of its client camera.
func startEcho(t *testing.T) (url string, client []string) {
	t.Helper()
	return startServer(t, "")
}

// startServer is startEcho with more settings of the server, as in ", upstream: URL".
func startServer(t *testing.T, settings string) (url string, client []string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"pass": "a passphrase\n", "c.yaml": "keystore: {uri: 'soft:keys', pin: 'file:pass'}\nserver: {state: server.db" + settings + "}\n", "none.yaml": ""} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runSelf(t, "--config", "c.yaml", "key", "create", "--set", "server")
	key := runSelf(t, "--config", "c.yaml", "key", "show", "msl-identity", "--public")
	if err := os.WriteFile("server.pem", key, 0o600); err != nil {
		t.Fatal(err)
	}
	runSelf(t, "--config", "c.yaml", "entity", "add", "camera", "--generate-psk", "camera.psk")
	server := exec.Command("msl-hsm", "serve", "--config", "c.yaml", "--listen", "127.0.0.1:0")
	out, err := server.StdoutPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Signal(os.Interrupt); server.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url = strings.Replace(strings.TrimSpace(strings.TrimPrefix(line, "ready at ")), "http:", "ws:", 1)
	return url, []string{"--config", "none.yaml", "--psk-file", "camera.psk", "--server-key", "server.pem"}
}

// runSelf runs the command in this process.
func runSelf(t *testing.T, args ...string) []byte {
	t.Helper()
	var out, errs bytes.Buffer
	if code := runCheaply(args, strings.NewReader(""), &out, &errs); code != 0 {
		t.Fatalf("%v: exit code %d, %s", args, code, errs.String())
	}
	return out.Bytes()
}

// TestChannelLines says a line when the one before has come back, and is cut off when
// the entity is revoked.
func TestChannelLines(t *testing.T) {
	url, client := startEcho(t)
	in, typed := io.Pipe()
	shown, out := io.Pipe()
	var errs bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- runCheaply(append([]string{"channel", url}, client...), in, out, &errs)
		out.Close()
	}()
	lines := bufio.NewReader(shown)
	for i := range 3 {
		want := fmt.Sprintf("line %d\n", i)
		go io.WriteString(typed, want)
		if got, err := lines.ReadString('\n'); got != want || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	runSelf(t, "--config", "c.yaml", "entity", "revoke", "camera")
	select {
	case c := <-code:
		if c == 0 || strings.Count(errs.String(), "\n") != 1 || strings.Count(errs.String(), "cut off") != 1 {
			t.Errorf("exit code %d, %q", c, errs.String())
		}
	case <-time.After(20 * time.Second):
		t.Error("the channel of a revoked entity goes on")
	}
	typed.Close()
}

// TestChannelGateway says a line to a service behind a gateway when the one before has come
// back, over a WebSocket and HTTP. The end of the input ends the service's request, and
// the end of its answer the channel.
func TestChannelGateway(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		for lines := bufio.NewScanner(r.Body); lines.Scan() && lines.Text() != "end"; {
			fmt.Fprintf(w, "you said %s\n", lines.Text())
			http.NewResponseController(w).Flush()
		}
		io.WriteString(w, "bye\n")
	}))
	defer service.Close()
	url, client := startServer(t, ", upstream: {url: '"+service.URL+"', body: stream}")
	for _, u := range []string{url, strings.Replace(url, "ws:", "http:", 1)} {
		for _, ending := range []string{"", "end\n"} {
			in, typed := io.Pipe()
			shown, out := io.Pipe()
			var errs bytes.Buffer
			code := make(chan int, 1)
			go func() {
				code <- runCheaply(append([]string{"channel", u}, client...), in, out, &errs)
				out.Close()
			}()
			lines := bufio.NewReader(shown)
			for i := range 3 {
				go fmt.Fprintf(typed, "line %d\n", i)
				if got, err := lines.ReadString('\n'); got != fmt.Sprintf("you said line %d\n", i) || err != nil {
					t.Fatalf("%s: got %q, %v", u, got, err)
				}
			}
			go func() {
				if io.WriteString(typed, ending); ending == "" {
					typed.Close()
				}
			}()
			if rest, err := io.ReadAll(lines); string(rest) != "bye\n" || err != nil {
				t.Errorf("%s, %q: got %q, %v", u, ending, rest, err)
			}
			if c := <-code; c != 0 || errs.Len() > 0 {
				t.Errorf("%s, %q: exit code %d, %s", u, ending, c, errs.String())
			}
			typed.Close()
		}
	}
}

// TestChannelLong sends 64 MiB each way, and the command has flat memory.
func TestChannelLong(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("MSL_SOAK is not set")
	}
	url, client := startEcho(t)
	piece := make([]byte, 1<<20)
	rand.Read(piece)
	c := exec.Command("msl-hsm", append([]string{"channel", url}, client...)...)
	in, _ := c.StdinPipe()
	out, _ := c.StdoutPipe()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 64 {
			in.Write(piece)
		}
	}()
	got := make([]byte, len(piece))
	for i := range 64 {
		if _, err := io.ReadFull(out, got); err != nil || !bytes.Equal(got, piece) {
			t.Fatalf("after %d MiB: %v", i, err)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(status), "VmHWM:")
	var most int // KiB of memory that it ever had
	if _, err := fmt.Sscan(text, &most); err != nil || most > 80<<10 {
		t.Errorf("the command took %d KiB, %v", most, err)
	}
	t.Logf("%d KiB at most", most)
	in.Close()
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

// TestChannelSignal ends a channel by a signal.
func TestChannelSignal(t *testing.T) {
	url, client := startEcho(t)
	c := exec.Command("msl-hsm", append([]string{"channel", url}, client...)...)
	var errs bytes.Buffer
	c.Stderr = &errs
	in, _ := c.StdinPipe()
	out, _ := c.StdoutPipe()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(in, "a line\n")
	if _, err := io.ReadFull(out, make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	c.Process.Signal(os.Interrupt)
	if err := c.Wait(); c.ProcessState.ExitCode() != 1 || errs.String() != "msl-hsm: the channel was cut off by a signal\n" {
		t.Errorf("%v, %q", err, errs.String())
	}
}
