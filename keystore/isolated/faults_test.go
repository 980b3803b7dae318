//go:build cgo && !nopkcs11

package isolated_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// A world is a store in a child whose module fails on command, with a key of each kind.
type world struct {
	*isolated.Store
	token  *softhsm.Token
	module *hsmtest.Module
	log    *lines

	provisioned, sealed, fresh keystore.MAC

	started atomic.Int64 // children
}

func (w *world) starts() int64 { return w.started.Load() }

// lines are those of a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newWorld(t *testing.T, c isolated.Config) *world {
	t.Helper()
	return newWorldOf(t, c, hsm.Config{})
}

// newWorldOf is newWorld with settings of the store in the child.
func newWorldOf(t *testing.T, c isolated.Config, own hsm.Config) *world {
	t.Helper()
	w := &world{token: newToken(t), log: &lines{}}
	w.module = hsmtest.New(t, w.token.Module)
	c.Log = slog.New(slog.NewTextHandler(w.log, nil))
	own.URI = strings.Replace(w.token.URI, w.token.Module, w.module.Path, 1)
	w.Store = open(t, w.token, own, c, &w.started)
	v, err := w.Create("mac", keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	w.provisioned = v.Key.(keystore.MAC)
	w.sealed = w.generate(t)
	if _, err := w.Seal(w.sealed, []byte("context")); err != nil {
		t.Fatal(err)
	}
	w.fresh = w.generate(t)
	return w
}

func (w *world) generate(t *testing.T) keystore.MAC {
	t.Helper()
	k, err := w.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k.(keystore.MAC)
}

func sum(t *testing.T, k keystore.MAC) string {
	t.Helper()
	b, err := k.Sum([]byte("data"))
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// eventually wants that something becomes true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in 20 seconds", what)
		}
	}
}

// TestChildEnds ends the child in several ways. The next call works in another one, with
// the same keys; a key that was not sealed is lost.
func TestChildEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(w *world)
		told string
	}{
		"killed":  {func(w *world) { syscall.Kill(w.PID(), syscall.SIGKILL) }, "signal: killed"},
		"crashed": {func(w *world) { w.module.Inject(hsmtest.Fault{Function: "C_Sign", Crash: true, Times: 1}) }, "has ended ("},
		"aborted": {func(w *world) { w.module.Inject(hsmtest.Fault{Function: "C_Sign", Abort: true, Times: 1}) }, "has ended ("},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, isolated.Config{})
			before, pid := [2]string{sum(t, w.provisioned), sum(t, w.sealed)}, w.PID()
			c.end(w)
			if after := [2]string{sum(t, w.provisioned), sum(t, w.sealed)}; after != before {
				t.Errorf("the keys compute %x, and before %x", after, before)
			}
			if w.PID() == pid {
				t.Error("the child is still the same")
			}
			if _, err := w.fresh.Sum(nil); !errors.Is(err, keystore.ErrLost) {
				t.Errorf("a key that was not sealed: %v", err)
			}
			eventually(t, "the line about another child", func() bool { return strings.Contains(w.log.String(), "device back") })
			if log := w.log.String(); !strings.Contains(log, c.told) {
				t.Errorf("the log is %s", log)
			}
		})
	}
}

// TestChildHangs has a child that does not answer. The call is given up, and the ones
// after it work.
func TestChildHangs(t *testing.T) {
	for name, hang := range map[string]func(w *world){
		"stopped":   func(w *world) { stop(t, w.PID()) },
		"in a call": func(w *world) { w.module.Inject(hsmtest.Fault{Function: "C_Sign", Hang: true, Times: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			const limit = time.Second
			w := newWorld(t, isolated.Config{Limit: limit})
			before, pid := sum(t, w.sealed), w.PID()
			hang(w)
			start := time.Now()
			_, err := w.sealed.Sum([]byte("data"))
			if took := time.Since(start); !errors.Is(err, keystore.ErrUnavailable) || took < limit || took > 3*limit {
				t.Errorf("a call that hangs: %v, after %v", err, took)
			}
			if after := sum(t, w.sealed); after != before || w.PID() == pid {
				t.Errorf("child %d, and before %d; the key computes %x, and before %x", w.PID(), pid, after, before)
			}
		})
	}
}

// stop stops all threads of a process.
func stop(t *testing.T, pid int) {
	syscall.Kill(pid, syscall.SIGSTOP)
	eventually(t, "the child to stop", func() bool { return stateOf(pid) == "T" })
}

// stateOf returns the state of a process as a letter, or "" if there is none (proc(5)).
func stateOf(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, found := strings.Cut(string(text), ") ")
	if err != nil || !found {
		return ""
	}
	return after[:1]
}

// TestOthersWait has many calls under way when the child is killed: all work.
func TestOthersWait(t *testing.T) {
	w := newWorld(t, isolated.Config{})
	want := sum(t, w.sealed)
	var calls sync.WaitGroup
	var done atomic.Int64
	for range 16 {
		calls.Go(func() {
			for range 100 {
				if got := sum(t, w.sealed); got != want {
					t.Errorf("the key computes %x, want %x", got, want)
				}
				done.Add(1)
			}
		})
	}
	eventually(t, "calls", func() bool { return done.Load() >= 200 })
	syscall.Kill(w.PID(), syscall.SIGKILL)
	calls.Wait()
}

// TestMemory has a bound that every child exceeds.
func TestMemory(t *testing.T) {
	w := newWorld(t, isolated.Config{Memory: 1})
	eventually(t, "another child", func() bool { return strings.Contains(w.log.String(), "device back") })
	if !strings.Contains(w.log.String(), "occupied") {
		t.Errorf("the log is %s", w.log)
	}
}

// TestRestarts has children that crash as soon as they run: they are not started, and do not
// log in to the token, as fast as they can.
func TestRestarts(t *testing.T) {
	const starts = 5
	started := make(chan time.Time, 100)
	command := func() *exec.Cmd {
		started <- time.Now()
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), asBrief+"=1")
		return c
	}
	s, err := isolated.Open(isolated.Config{Command: command})
	for errors.Is(err, keystore.ErrUnavailable) { // it crashed before it was open
		<-started
		s, err = isolated.Open(isolated.Config{Command: command})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first := <-started
	for range starts - 2 {
		<-started
	}
	if took := (<-started).Sub(first); took < time.Second {
		t.Errorf("%d children were started within %v", starts, took)
	}
}

// TestEndsEarly has children that end before their store is open: that is told at once, and not
// when they had time enough to open it.
func TestEndsEarly(t *testing.T) {
	for _, command := range []string{"exit 3", "read settings; kill -9 $$"} {
		began := time.Now()
		_, err := isolated.Open(isolated.Config{Command: func() *exec.Cmd { return exec.Command("/bin/sh", "-c", command) }})
		if took := time.Since(began); !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "ended before the store was open") || took > 10*time.Second {
			t.Errorf("%s: %v after %v", command, err, took)
		}
	}
}

// TestDescriptors has a descriptor that this process inherited: the child does not get it.
func TestDescriptors(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := syscall.Open(secret, syscall.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(f)
	w := newWorld(t, isolated.Config{})
	dir := fmt.Sprintf("/proc/%d/fd", w.PID())
	all, err := os.ReadDir(dir)
	if err != nil || len(all) == 0 {
		t.Fatal(err)
	}
	for _, fd := range all {
		if at, _ := os.Readlink(filepath.Join(dir, fd.Name())); at == secret {
			t.Errorf("the child has %s", at)
		}
	}
}

// TestAnotherKey replaces a key by one of the same name while the child is replaced.
func TestAnotherKey(t *testing.T) {
	w := newWorld(t, isolated.Config{})
	other, err := hsm.Open(hsm.Config{URI: w.token.URI, PIN: w.token.PIN})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Destroy("mac", 1); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(w.PID(), syscall.SIGKILL)
	if _, err := w.provisioned.Sum(nil); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a key that was destroyed: %v", err)
	}
	if _, err := other.Create("mac", keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	if _, err := w.provisioned.Sum(nil); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("another key of the same name: %v", err)
	}
}

// TestRefresh finds a version that another program made.
func TestRefresh(t *testing.T) {
	w := newWorld(t, isolated.Config{})
	other, err := hsm.Open(hsm.Config{URI: w.token.URI, PIN: w.token.PIN})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := w.Lookup("mac"); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Create("mac", keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	w.Refresh()
	if ring, err := w.Lookup("mac"); err != nil || len(ring) != 2 {
		t.Errorf("%d versions: %v", len(ring), err)
	}
}

// TestNoModule has a child that cannot be replaced for a while.
func TestNoModule(t *testing.T) {
	w := newWorld(t, isolated.Config{})
	w.module.Inject(hsmtest.Fault{Function: "C_OpenSession", Code: 0x30}) // CKR_DEVICE_ERROR
	syscall.Kill(w.PID(), syscall.SIGKILL)
	if _, err := w.sealed.Sum(nil); !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "CKR_DEVICE_ERROR") {
		t.Errorf("without a device: %v", err)
	}
	starts := w.starts()
	w.module.Clear()
	eventually(t, "a call that works", func() bool { _, err := w.sealed.Sum(nil); return err == nil })
	if n := w.starts() - starts; n > 2 { // the one under way may have failed already
		t.Errorf("%d children were needed after the device was back", n)
	}
}

// TestSecrets looks for the PIN where others see it.
func TestSecrets(t *testing.T) {
	w := newWorld(t, isolated.Config{})
	pin := pinOf(t, w.token)
	defer pin.Close()
	for _, name := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", w.PID(), name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, pin.Bytes()) {
			t.Errorf("the PIN is in the %s of the child", name)
		}
	}
}

// TestParentKilled kills a process that has a child: the child goes, too.
func TestParentKilled(t *testing.T) {
	token := newToken(t)
	parent := exec.Command("/proc/self/exe")
	parent.Env = append(os.Environ(), asParent+"="+token.URI, asParent+"_PIN="+string(token.PIN))
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	parent.Process.Kill()
	parent.Wait()
	eventually(t, "the end of the child", func() bool {
		state := stateOf(pid)
		return state == "" || state == "Z" // nobody has waited for it yet
	})
}

// TestClosed closes stores: no child is started for one that is closed.
func TestClosed(t *testing.T) {
	token := newToken(t)
	for range 8 {
		var started atomic.Int64
		s, err := isolated.Open(isolated.Config{
			Command: func() *exec.Cmd { started.Add(1); return child() }, Settings: settings(t, hsm.Config{URI: token.URI}), PIN: pinOf(t, token),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if n := started.Load(); n != 1 {
			t.Errorf("%d children were started", n)
		}
	}
}
