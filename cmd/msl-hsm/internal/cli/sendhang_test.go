//go:build cgo && !nopkcs11

package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// A hangingDevice has pre-shared keys in a module that hangs on command, and a server
// whose keys are elsewhere.
type hangingDevice struct {
	*hangable
	url string
}

func newHangingDevice(t *testing.T) *hangingDevice {
	t.Helper()
	s := newSite(t)
	d := &hangingDevice{newHangable(t), s.url}
	for _, name := range []string{"camera.psk", "server.pem"} {
		text, err := os.ReadFile(s.path(name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, d.dir, name, string(text))
	}
	d.run("key", "import", "camera", "--set", "psk", "--file", "camera.psk")
	return d
}

// ends waits for the end of a command, which says why on one line, and returns that.
func (d *hangingDevice) ends(c *child, most time.Duration) (code int, line string) {
	d.t.Helper()
	select {
	case err := <-c.ended:
		var ended *exec.ExitError
		if errors.As(err, &ended) {
			code = ended.ExitCode()
		}
	case <-time.After(most):
		c.Process.Kill()
		<-c.ended // after which nobody writes what it said
		d.t.Fatalf("%v: still running after %v: %s", c.Args, most, c.stderr.String())
	}
	return code, c.stderr.String()
}

// sends sends a message within a second, with a function that hangs.
func (d *hangingDevice) sends(function string) (code int, line string) {
	d.t.Helper()
	d.Clear()
	d.hang(function)
	return d.ends(launch(d.t, d.dir, "send", d.url, "--config", "c.yaml", "--data", "hello", "--timeout", "1s"), hungLimit)
}

// TestSendHungModule has a call into the device's own module hang: send ends in its
// time, and says on one line what did not answer.
func TestSendHungModule(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	d := newHangingDevice(t)
	t.Parallel()
	for function, want := range map[string]string{
		"C_Login":        "the key store did not open within 1s",
		"C_Decrypt":      "the message did not get through within 1s",
		"C_CloseSession": "the key store did not close within 1s",
	} {
		code, line := d.sends(function)
		for turn := 0; d.Counters().Fired == 0 && turn < 9; turn++ { // the second was over before the call
			code, line = d.sends(function)
		}
		if code != exit.Keystore || strings.Count(line, "\n") != 1 || !strings.Contains(line, want) || !strings.Contains(line, "check the HSM or TPM") {
			t.Errorf("%s: exit code %d: %s", function, code, line)
		}
	}
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if signal.Ignored(s) {
			continue // so does the child: go tool test2json and background jobs of a shell have it so
		}
		d.Clear()
		d.hang("C_Sign")
		c := launch(t, d.dir, "send", d.url, "--config", "c.yaml", "--data", "hello")
		d.hangs(c)
		c.signal(s)
		if code, line := d.ends(c, hungLimit); code != -1 || line != "" {
			t.Errorf("%v: exit code %d: %s", s, code, line)
		}
	}
}

// TestAgentHungModule lets a program wait for an agent whose module hangs: it gets an answer in time
// to try again, and the agent ends when it is asked to.
func TestAgentHungModule(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	d := newHangingDevice(t)
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(d.dir, "c.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, d.dir, "c.yaml", strings.Replace(string(text), "agent: {", "agent: {timeout: 1s, ", 1))
	c := launch(t, d.dir, "agent", d.url, "--config", "c.yaml", "--ready-file", "ready")
	await(t, "the agent", func() bool { _, err := os.Stat(filepath.Join(d.dir, "ready")); return err == nil })
	d.hang("C_Sign")
	web := &http.Client{Timeout: hungLimit, Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(d.dir, "a.sock"))
	}}}
	response, err := web.Post("http://agent/", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" || !strings.Contains(string(said), "does not return") {
		t.Errorf("status %d: %s, %v", response.StatusCode, said, err)
	}
	c.signal(syscall.SIGTERM)
	c.forced(time.Second, hungLimit, "it did not end within 1s", "the key store to close")
}
