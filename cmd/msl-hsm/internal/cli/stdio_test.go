package cli

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// unread returns a pipe that nobody reads.
func unread(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { w.Close() })
	return w
}

// codeOf returns the exit code of a command that ended by itself.
func codeOf(t *testing.T, err error) int {
	t.Helper()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &ended) || !ended.Exited():
		t.Fatalf("it did not end by itself: %v", err)
	}
	return ended.ExitCode()
}

// TestUnread has nobody read what commands print: they do all that they are to do, and say by
// their exit code alone that it was not read.
func TestUnread(t *testing.T) {
	skipWithRace(t)
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "pin", "passphrase\n")
	write(t, dir, "msl-hsm.yaml", "keystore: {uri: \"soft:keys\", pin: \"file:pin\"}\nserver: {state: s.db}\n")
	for _, verb := range []string{"errors", "key create --set server"} {
		c := exec.Command("msl-hsm", strings.Fields(verb)...)
		var said bytes.Buffer
		c.Dir, c.Stdout, c.Stderr = dir, unread(t), &said
		if code := codeOf(t, c.Run()); code != exit.Unread || said.Len() > 0 {
			t.Errorf("%s: exit code %d, %q", verb, code, &said)
		}
	}
	c := exec.Command("msl-hsm", "key", "list")
	c.Dir = dir
	if out, err := c.Output(); err != nil || !strings.Contains(string(out), "msl-seal-mac") {
		t.Errorf("not all keys were made: %v\n%s", err, out)
	}
	write(t, dir, "whole", `{"other":1}`)
	write(t, dir, "damaged", `{"other":1} {"headerdata":`)
	for file, want := range map[string]int{"whole": exit.Unread, "damaged": exit.Failure} {
		c := exec.Command("msl-hsm", "inspect", file)
		c.Dir, c.Stdout = dir, unread(t)
		if code := codeOf(t, c.Run()); code != want {
			t.Errorf("inspect %s: exit code %d", file, code)
		}
	}
	unreadServer(t, dir)
}

// unreadServer stops reading the log of a server, which continues.
func unreadServer(t *testing.T, dir string) {
	c := exec.Command("msl-hsm", "serve", "-v", "--listen", "127.0.0.1:0", "--ready-file", "ready")
	c.Dir, c.Stderr = dir, unread(t)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	await(t, "the server", func() bool {
		_, err := os.Stat(filepath.Join(dir, "ready"))
		return err == nil || len(ended) > 0
	})
	c.Process.Signal(syscall.SIGTERM)
	if code := codeOf(t, <-ended); code != 0 {
		t.Errorf("the server ended with %d", code)
	}
}

// TestOneSignal sends a server the same signal several times at once, as timeout does with its
// group: it is one, and the server has its time.
func TestOneSignal(t *testing.T) {
	skipWithRace(t)
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "keys", closedKeys())
	write(t, dir, "c.yaml", "keystore: {uri: \"soft:keys\", pin: \"fd:0\"}\nserver: {state: s.db, shutdown: 1s, listen: \"127.0.0.1:0\"}\n")
	c := launch(t, dir, "serve", "--init-state", "--config", "c.yaml")
	awaitMaking(t, dir)
	for range 5 {
		c.signal(syscall.SIGTERM)
	}
	c.forced(time.Second, 6*time.Second, "it did not end within 1s", "the key store to open")
}

// TestStopEarly tells a server to stop before it has read its configuration: it ends in order, as
// one that was ready.
func TestStopEarly(t *testing.T) {
	skipWithRace(t)
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "c.yaml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "pin", "passphrase\n")
	write(t, dir, "made.yaml", "keystore: {uri: \"soft:keys\", pin: \"file:pin\"}\nserver: {state: s.db, listen: \"127.0.0.1:0\"}\n")
	create := exec.Command("msl-hsm", "key", "create", "--set", "server", "--config", "made.yaml")
	create.Dir = dir
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	writer, err := os.OpenFile(fifo, os.O_RDWR, 0) // does not wait for a reader
	if err != nil {
		t.Fatal(err)
	}
	c := launch(t, dir, "serve", "--config", "c.yaml")
	await(t, "somebody who reads the configuration", func() bool { return c.has(fifo) })
	c.signal(syscall.SIGTERM)
	text, err := os.ReadFile(filepath.Join(dir, "made.yaml"))
	if err == nil {
		_, err = writer.Write(text)
	}
	if err = errors.Join(err, writer.Close()); err != nil {
		t.Fatal(err)
	}
	if code := codeOf(t, <-c.ended); code != 0 || !strings.Contains(c.stderr.String(), "stopped, every key object is closed") {
		t.Errorf("exit code %d: %s", code, &c.stderr)
	}
}
