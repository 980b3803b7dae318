package cli

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// A child is a server or an agent in a process of its own.
type child struct {
	*exec.Cmd
	t      *testing.T
	stderr bytes.Buffer
	ended  chan error
	told   time.Time // to end, for the first time
}

// launch starts msl-hsm in a directory, with a standard input that never ends.
func launch(t *testing.T, dir string, args ...string) *child {
	t.Helper()
	return launchIn(t, dir, nil, args...)
}

// launchIn is launch with more in the environment.
func launchIn(t *testing.T, dir string, env []string, args ...string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command("msl-hsm", args...), t: t, ended: make(chan error, 1)}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Dir, c.Stdin, c.Stderr = dir, r, &c.stderr
	c.Env = append(os.Environ(), env...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	go func() { c.ended <- c.Wait() }()
	t.Cleanup(func() {
		w.Close()
		c.Process.Kill()
	})
	return c
}

func (c *child) signal(s os.Signal) {
	c.t.Helper()
	if c.told.IsZero() {
		c.told = time.Now()
	}
	if err := c.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// forced checks that the process ends by force, not before least after its first signal and
// before most from now, and prints what it waited for.
func (c *child) forced(least, most time.Duration, why, waiting string) {
	c.t.Helper()
	select {
	case err := <-c.ended:
		var ended *exec.ExitError
		if took := time.Since(c.told); !errors.As(err, &ended) || ended.ExitCode() != exit.Forced || took < least {
			c.t.Errorf("ended after %v with %v", took, err)
		}
	case <-time.After(most):
		c.t.Fatalf("still running after %v", most)
	}
	line := c.stderr.String()
	for _, want := range []string{`"level":"ERROR"`, `"msg":"stopped by force"`, why, `"waiting_for":"` + waiting + `"`} {
		if !strings.Contains(line, want) {
			c.t.Errorf("the log does not have %s: %s", want, line)
		}
	}
}

// await waits for a condition.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// has reports whether the process has a file open, as Linux tells.
func (c *child) has(path string) bool {
	all := filepath.Join("/proc", strconv.Itoa(c.Process.Pid), "fd")
	open, _ := os.ReadDir(all)
	return slices.ContainsFunc(open, func(e os.DirEntry) bool {
		at, _ := os.Readlink(filepath.Join(all, e.Name()))
		return at == path
	})
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// closedKeys looks like a key file to anyone without its passphrase.
func closedKeys() string {
	text := "msl-hsm soft keys\n" + strings.Repeat("\x02", 64)
	sum := sha256.Sum256([]byte(text))
	return text + string(sum[:])
}

// awaitMaking waits until a file is being made in a directory.
func awaitMaking(t *testing.T, dir string) {
	t.Helper()
	await(t, "the new file", func() bool {
		found, err := filepath.Glob(filepath.Join(dir, ".new-*"))
		return err == nil && len(found) > 0
	})
}

// TestStopStart has a server whose start hangs: it waits for a passphrase.
func TestStopStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "keys", closedKeys())
	write(t, dir, "c.yaml", "keystore: {uri: \"soft:keys\", pin: \"fd:0\"}\nserver: {state: s.db, shutdown: 1s, listen: \"127.0.0.1:0\"}\n")
	c := launch(t, dir, "serve", "--init-state", "--config", "c.yaml")
	awaitMaking(t, dir)
	c.signal(syscall.SIGTERM)
	c.forced(time.Second, 6*time.Second, "it did not end within 1s", "the key store to open")
}

// TestStopNoTime has a server that gives messages in flight no time: it still closes its keys.
func TestStopNoTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "pin", "passphrase\n")
	write(t, dir, "c.yaml", "keystore: {uri: \"soft:keys\", pin: \"file:pin\"}\nserver: {state: s.db, custody: imported, shutdown: 0s, listen: \"127.0.0.1:0\"}\n")
	if err := <-launch(t, dir, "key", "create", "--set", "server", "--config", "c.yaml").ended; err != nil {
		t.Fatal(err)
	}
	c := launch(t, dir, "serve", "--config", "c.yaml", "--ready-file", "ready")
	await(t, "the server", func() bool { _, err := os.Stat(filepath.Join(dir, "ready")); return err == nil })
	c.signal(syscall.SIGTERM)
	select {
	case err := <-c.ended:
		if err != nil || !strings.Contains(c.stderr.String(), "every key object is closed") {
			t.Errorf("it ended with %v: %s", err, c.stderr.String())
		}
	case <-time.After(5 * time.Second):
		t.Error("it does not end")
	}
}

// TestStopTwice ends at once with a second signal, whichever it is, and before the
// configuration is read: here it never comes.
func TestStopTwice(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"serve"}, {"agent", "http://127.0.0.1:1/"}} {
		dir := t.TempDir()
		fifo := filepath.Join(dir, "c.yaml")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		writer, err := os.OpenFile(fifo, os.O_RDWR, 0) // does not wait for a reader
		if err != nil {
			t.Fatal(err)
		}
		defer writer.Close()
		c := launch(t, dir, append(args, "--config", "c.yaml")...)
		await(t, "somebody who reads the configuration", func() bool { return c.has(fifo) })
		c.signal(syscall.SIGINT)
		select {
		case err := <-c.ended:
			t.Fatalf("the first signal ended it: %v", err)
		case <-time.After(300 * time.Millisecond):
		}
		c.signal(syscall.SIGTERM)
		c.forced(0, 5*time.Second, "a second signal", "start")
	}
}
