//go:build cgo && !nopkcs11

package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/internal/uncut"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// A hangable is a directory with a configuration for a server whose module hangs on
// command.
type hangable struct {
	*hsmtest.Module
	t   *testing.T
	dir string
}

func newHangable(t *testing.T) *hangable {
	t.Helper()
	library, err := softhsm.FindModule()
	if err != nil {
		t.Skip(err) // TestScripts fails if it is required
	}
	h := &hangable{Module: hsmtest.New(t, library), t: t, dir: t.TempDir()}
	if err := madeToken.put(h.dir, makeServerToken); err != nil {
		t.Fatal(err)
	}
	uri := hsm.URI{Token: "dev", ModulePath: h.Path}
	write(t, h.dir, "c.yaml", fmt.Sprintf("keystore: {softhsm: dev, uri: %q, pin: 'file:dev/pin'}\n"+
		"server: {state: dev/server.db, shutdown: 1s, listen: \"127.0.0.1:0\"}\n"+
		"client: {psk-keys: camera, identity: camera, server-key: server.pem, agent: {listen: \"unix:a.sock\", shutdown: 1s}}\n", uri.String()))
	return h
}

// run does a command that must succeed, and returns what it prints.
func (h *hangable) run(args ...string) string {
	h.t.Helper()
	c := exec.Command("msl-hsm", append(args, "--config", "c.yaml")...)
	c.Dir = h.dir
	out, err := c.Output()
	if err != nil {
		h.t.Fatalf("%v: %v: %s", args, err, out)
	}
	return string(out)
}

// hang makes calls of a function hang, or of all.
func (h *hangable) hang(function string) { h.Inject(hsmtest.Fault{Function: function, Hang: true}) }

// hangs waits until a call of the child does.
func (h *hangable) hangs(c *child) {
	h.t.Helper()
	await(h.t, "a call that hangs", func() bool {
		select {
		case err := <-c.ended:
			h.t.Fatalf("%v ended: %v: %s", c.Args, err, c.stderr.String())
		default:
		}
		return h.Counters().Fired > 0
	})
}

// serve starts a server and waits until it is ready.
func (h *hangable) serve() (c *child, url string) {
	h.t.Helper()
	c = launch(h.t, h.dir, "serve", "--config", "c.yaml", "--ready-file", "ready")
	ready := filepath.Join(h.dir, "ready")
	await(h.t, "the server", func() bool { _, err := os.Stat(ready); return err == nil })
	text, err := os.ReadFile(ready)
	if err != nil {
		h.t.Fatal(err)
	}
	return c, strings.TrimSpace(string(text))
}

// hungLimit is how long what has to end after a second may take on a busy machine. What the
// command says tells what ended it: a call that hangs never does.
const hungLimit = 6 * time.Second

func TestStopHungStart(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	h := newHangable(t)
	t.Parallel()
	for _, function := range []string{"C_Initialize", "C_GetSlotList", "C_Login"} {
		for _, args := range [][]string{{"serve"}, {"agent", "http://127.0.0.1:1/"}} {
			h.hang(function)
			c := launch(t, h.dir, append(args, "--config", "c.yaml")...)
			h.hangs(c)
			c.signal(syscall.SIGTERM)
			if function != "C_Login" {
				c.signal(syscall.SIGINT) // two equal ones may become one
				c.forced(0, 5*time.Second, "a second signal", "the key store to open")
				continue
			}
			c.forced(time.Second, hungLimit, "it did not end within 1s", "the key store to open")
		}
	}
}

func TestStopHungMessage(t *testing.T) {
	h := newHangable(t)
	t.Parallel()
	h.run("entity", "add", "camera", "--generate-psk", "camera.psk")
	c, url := h.serve()
	h.hang("")
	device := launch(t, h.dir, "send", url, "--psk-file", "camera.psk", "--server-key", "server.pem", "--key-exchange", "SYMMETRIC_WRAPPED", "--data", "hello")
	h.hangs(device)
	c.signal(syscall.SIGTERM)
	c.forced(time.Second, hungLimit, "it did not end within 1s", "the key store to close")
	<-device.ended
}

func TestStopHungClose(t *testing.T) {
	h := newHangable(t)
	t.Parallel()
	c, _ := h.serve()
	h.hang("")
	c.signal(syscall.SIGTERM)
	h.hangs(c)
	c.forced(0, hungLimit, "it did not end within 1s", "the key store to close")
}

// TestSignalAtLogin checks that a signal does not cut off a login, in which SoftHSM writes the file
// of its token, and that one which hangs does not keep the command.
func TestSignalAtLogin(t *testing.T) {
	skipWithRace(t)
	t.Parallel()
	for _, returns := range []bool{true, false} {
		h := newHangable(t)
		h.hang("C_Login")
		c := launch(t, h.dir, "key", "list", "--config", "c.yaml")
		h.hangs(c)
		sent := time.Now()
		_ = c.Process.Signal(syscall.SIGINT)
		if returns {
			select {
			case <-c.ended:
				if time.Since(sent) < uncut.Most {
					t.Error("the signal cut off a login")
				}
				continue
			case <-time.After(uncut.Most / 10):
			}
			h.Clear()
		}
		<-c.ended
		if status := c.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || c.stderr.String() != "" {
			t.Errorf("%v: %s", c.ProcessState, c.stderr.String())
		}
		h.Clear()
	}
}

// TestKilledAtLogin checks that the process of an isolated module ends a login, too, although its
// parent was killed.
func TestKilledAtLogin(t *testing.T) {
	skipWithRace(t)
	t.Parallel()
	h := newHangable(t)
	text, err := os.ReadFile(filepath.Join(h.dir, "c.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, h.dir, "c.yaml", strings.Replace(string(text), "keystore: {", "keystore: {isolate: true, ", 1))
	h.hang("C_Login")
	c := launch(t, h.dir, "key", "list", "--config", "c.yaml")
	h.hangs(c)
	var child string
	for _, task := range tasksOf(t, c.Process.Pid) {
		children, err := os.ReadFile(filepath.Join(task, "children"))
		if err != nil {
			t.Skip(err) // the kernel does not tell
		}
		child += string(children)
	}
	runs := func() bool {
		stat, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(child), "stat"))
		return err == nil && !strings.Contains(string(stat), ") Z ")
	}
	sent := time.Now()
	c.Process.Kill()
	<-c.ended
	time.Sleep(uncut.Most / 10)
	if !runs() && time.Since(sent) < uncut.Most {
		t.Errorf("the process %q was cut off in a login", child)
	}
	h.Clear()
	await(t, "the end of the module's process", func() bool { return !runs() })
}

// tasksOf returns the directories of the threads of a process.
func tasksOf(t *testing.T, process int) []string {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", process))
	if err != nil || len(tasks) == 0 {
		t.Skip(err)
	}
	return tasks
}
