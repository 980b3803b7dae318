package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// changing are commands that write files. Each ends in a moment on its own.
func changing() [][]string {
	return [][]string{
		{"key", "create", "--set", "audit"}, {"key", "create", "camera", "--algorithm", "ecdsa-p256"},
		{"key", "rotate"}, {"key", "rewrap"}, {"key", "destroy", "spare", "--yes"},
		{"entity", "add", "tv", "--none"}, {"entity", "revoke", "camera-1"}, {"entity", "remove", "camera-1"},
		{"user", "add", "bob@example.com", "--password-source", "file:passphrase"}, {"user", "remove", "ada@example.com"},
		{"state", "backup", "copy.db"}, {"state", "compact"}, {"state", "prune"}, {"state", "restore", "kept.db"},
		{"doctor"}, {"man", "pages"},
	}
}

// TestSignals has signals end commands that write, at moments from their start to their end: a
// command ends by the signal, or says what it did, in one line, and keys and state can be used.
func TestSignals(t *testing.T) {
	skipWithRace(t)
	t.Parallel()
	site := t.TempDir()
	for name, content := range map[string]string{
		"passphrase":   "of a test\n",
		"msl-hsm.yaml": "keystore: {uri: 'soft:keys.soft', pin: 'file:passphrase'}\nserver: {listen: '127.0.0.1:0', state: server.db}\n",
	} {
		write(t, site, name, content)
	}
	for _, args := range [][]string{
		{"key", "create", "--set", "server"}, {"key", "create", "spare", "--algorithm", "ecdsa-p256"}, {"entity", "add", "camera-1", "--none"},
		{"user", "add", "ada@example.com", "--password-source", "file:passphrase"}, {"state", "backup", "kept.db"},
	} {
		if c := launch(t, site, args...); <-c.ended != nil {
			t.Fatal(args, c.stderr.String())
		}
	}
	moments := []int{1}
	verbs := changing()[:3]
	if os.Getenv("MSL_SOAK") != "" {
		moments, verbs = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, changing()
	}
	for _, verb := range verbs {
		whole := time.Now()
		<-launch(t, copied(t, site), verb...).ended
		took := time.Since(whole)
		for i, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
			for _, m := range moments {
				interruptVerb(t, copied(t, site), verb, s, took*time.Duration(3*m+i)/time.Duration(3*len(moments)+1))
			}
		}
	}
}

// interruptVerb sends a signal some time after the start of a command.
func interruptVerb(t *testing.T, dir string, verb []string, s syscall.Signal, after time.Duration) {
	t.Helper()
	c := launch(t, dir, verb...)
	time.Sleep(after)
	_ = c.Process.Signal(s)
	select {
	case <-c.ended:
	case <-time.After(time.Minute):
		t.Fatalf("%v, %v: it does not end", verb, s)
	}
	status, said := c.ProcessState.Sys().(syscall.WaitStatus), c.stderr.String()
	if status.Signaled() && (status.Signal() != s || said != "") || !status.Signaled() && !slices.Contains([]int{0, 1}, status.ExitStatus()) {
		t.Errorf("%v, %v after %v: %v: %s", verb, s, after, c.ProcessState, said)
	}
	if failed := !status.Signaled() && status.ExitStatus() == 1; failed && strings.Count(said, "\n") != 1 {
		t.Errorf("%v, %v after %v: %s", verb, s, after, said)
	}
	for _, look := range [][]string{{"key", "list"}, {"state", "check"}} {
		if c := launch(t, dir, look...); <-c.ended != nil {
			t.Errorf("%v, %v after %v; then %v: %s", verb, s, after, look, c.stderr.String())
		}
	}
}

// copied copies the files of a directory to another one.
func copied(t *testing.T, from string) (to string) {
	t.Helper()
	to = t.TempDir()
	all, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if !e.Type().IsRegular() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		write(t, to, e.Name(), string(content))
	}
	return to
}
