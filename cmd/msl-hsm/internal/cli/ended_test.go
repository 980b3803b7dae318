package cli

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestLeaveNothing has signals end commands that have throwaway files at that moment.
func TestLeaveNothing(t *testing.T) {
	skipWithRace(t)
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"passphrase":   "of a test\n",
		"msl-hsm.yaml": "keystore: {uri: 'soft:keys.soft', pin: 'file:passphrase'}\nserver: {listen: '127.0.0.1:0', state: server.db}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made := launch(t, dir, "key", "create", "--set", "server")
	if err := <-made.ended; err != nil {
		t.Fatal(err, made.stderr.String())
	}
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		interrupted := false
		for try := 0; try < 20 && !interrupted; try++ { // a doctor may be done before the signal comes
			interrupted = interruptDoctor(t, dir, s)
		}
		if !interrupted {
			t.Errorf("%v ended no doctor", s)
		}
	}
}

// interruptDoctor sends a signal to a doctor that has just made a directory, and reports whether
// that ended it.
func interruptDoctor(t *testing.T, dir string, s syscall.Signal) bool {
	t.Helper()
	temporary := t.TempDir()
	c := launchIn(t, dir, []string{"TMPDIR=" + temporary}, "doctor")
	names := func() []string {
		found, err := filepath.Glob(filepath.Join(temporary, "msl-hsm-doctor*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for over := false; !over && len(names()) == 0; {
		select {
		case err := <-c.ended:
			c.ended <- err
			over = true
		case <-time.After(time.Millisecond):
		}
	}
	_ = c.Process.Signal(s)
	<-c.ended
	if left := names(); len(left) > 0 {
		t.Errorf("%v: %q are left", s, left)
	}
	status := c.ProcessState.Sys().(syscall.WaitStatus)
	return status.Signaled() && status.Signal() == s || s == syscall.SIGQUIT && status.ExitStatus() == 2 // Go shows its stacks
}
