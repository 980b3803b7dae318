package admin

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/rpc"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/msl/state/etcd"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// socketBeside listens where the server of a state file would.
func socketBeside(t *testing.T) (path string, l net.Listener) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socketOf(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path, l
}

// dialed is a server that is there, whatever it answers.
func dialed(t *testing.T, path string) *Running {
	r := reach(socketOf(path), path)
	t.Cleanup(func() { r.Close() })
	return r
}

// answering takes requests as a server would.
func answering(t *testing.T, l net.Listener, handle http.HandlerFunc) {
	s := &http.Server{Handler: handle}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
}

func TestStuckServer(t *testing.T) {
	path, l := socketBeside(t)
	release := make(chan struct{})
	answering(t, l, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	start := time.Now()
	err := dialed(t, path).callFor(50*time.Millisecond, http.MethodGet, "/alive", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "did not answer in 50ms: it is stopped or stuck") || time.Since(start) > 5*time.Second {
		t.Fatalf("after %v: %v", time.Since(start), err)
	}
	if strings.Contains(err.Error(), "\n") || exit.Code(err) != exit.Failure {
		t.Errorf("exit code %d: %q", exit.Code(err), err)
	}
}

// TestSlowAnswer begins an answer and does not continue.
func TestSlowAnswer(t *testing.T) {
	path, l := socketBeside(t)
	release := make(chan struct{})
	answering(t, l, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"name":`)
		w.(http.Flusher).Flush()
		<-release
	})
	defer close(release)
	var users []state.UserRecord
	err := dialed(t, path).callFor(50*time.Millisecond, http.MethodGet, "/users", nil, &users)
	if err == nil || !strings.Contains(err.Error(), "did not answer in 50ms") {
		t.Error(err)
	}
}

// TestOtherVersion calls an unknown method of a server, and a server of an earlier version,
// which speaks net/rpc.
func TestOtherVersion(t *testing.T) {
	path, l := socketBeside(t)
	answering(t, l, http.NotFound)
	err := dialed(t, path).call(http.MethodGet, "/new", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "runs another version: restart it") {
		t.Error(err)
	}
	path, l = socketBeside(t)
	go rpc.Accept(l)
	began := time.Now()
	if r, err := Dial(path); err == nil || !strings.Contains(err.Error(), "runs another version: restart it") || time.Since(began) > patience/2 {
		t.Errorf("%v, %v after %v", r, err, time.Since(began))
	}
}

// TestGoneWhileDialed ends a server that was found, before it answered: that tells nothing of
// its version.
func TestGoneWhileDialed(t *testing.T) {
	path, l := socketBeside(t)
	go func() {
		for range 2 { // the second one asks
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
		l.Close()
	}()
	_, err := Dial(path)
	if err == nil || !strings.Contains(err.Error(), "ended before it answered: try again") {
		t.Error(err)
	}
}

// TestGoneBetweenCalls ends a server, and its socket with it, after an answer.
func TestGoneBetweenCalls(t *testing.T) {
	path, l := socketBeside(t)
	s := &http.Server{}
	go s.Serve(l)
	r := dialed(t, path)
	r.call(http.MethodGet, "/alive", nil, nil)
	s.Close()
	if err := r.call(http.MethodPost, "/state/prune", nil, nil); err == nil || !strings.Contains(err.Error(), "ended before it answered") {
		t.Error(err)
	}
}

// TestCloseWhileCopying ends a server in the middle of an answer, which is whole, and no
// copy of the state is left behind.
func TestCloseWhileCopying(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	server, err := bolt.CreateServer(path)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	l := Service{State: &State{Server: server.Server, File: server, Closer: server}, Path: path, Keep: time.Hour}.Listen(slog.New(slog.DiscardHandler))
	begun, goOn := make(chan bool), make(chan bool)
	answered := make(chan error, 1)
	go func() {
		answered <- dialed(t, path).callLong(http.MethodGet, "/state/snapshot", slowWriter{begun, goOn})
	}()
	<-begun
	closed := make(chan error, 1)
	go func() { closed <- l.Close() }()
	time.Sleep(10 * time.Millisecond)
	close(goOn)
	if err := errors.Join(<-answered, <-closed); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(path + ".backup-*"); len(left) > 0 {
		t.Errorf("copies are left: %v", left)
	}
}

// A slowWriter signals the start of a write, and waits before it ends.
type slowWriter struct{ begun, goOn chan bool }

func (w slowWriter) Write(p []byte) (int, error) {
	select {
	case w.begun <- true:
	case <-w.goOn:
	}
	<-w.goOn
	return len(p), nil
}

// TestPanicIsLogged at the level at which a server logs.
func TestPanicIsLogged(t *testing.T) {
	var log lockedBuffer
	path := filepath.Join(t.TempDir(), "s")
	broken := &bolt.Server{Server: &state.Server{Directory: &state.Directory{}, Accounts: &state.Accounts{}}}
	l := Service{State: &State{Server: broken.Server, File: broken, Closer: broken}, Path: path}.Listen(slog.New(slog.NewTextHandler(&log, nil)))
	defer l.Close()
	var all []state.UserRecord
	if err := dialed(t, path).call(http.MethodGet, "/users", nil, &all); err == nil {
		t.Error("answered without a state")
	}
	if !strings.Contains(log.String(), "panic") {
		t.Errorf("the log is %q", log.String())
	}
}

// A lockedBuffer takes what several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// TestOtherBytes must not register another name than the one that was given.
func TestOtherBytes(t *testing.T) {
	server, remote := served(t)
	err := remote.AddEntity(state.EntityRecord{Identity: "bad\xff", Scheme: "NONE"})
	if all, _ := server.Entities(); err == nil || len(all) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := remote.RemoveEntity("bad\xff"); err == nil {
		t.Error("removed")
	}
	e := remoteEnrollments(remote)
	if err := e.Apply(EnrollmentChange{Verb: "approve", Device: "x", Note: "bad\xff"}); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Error(err)
	}
}

// TestDyingServer ends a server during a request, and in the middle of its answer.
func TestDyingServer(t *testing.T) {
	for name, word := range map[string]string{"at once": "", "in its answer": "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n["} {
		t.Run(name, func(t *testing.T) {
			path, l := socketBeside(t)
			go func() {
				if c, err := l.Accept(); err == nil {
					c.Read(make([]byte, 1<<10))
					c.Write([]byte(word))
					c.Close()
				}
			}()
			var users []state.UserRecord
			err := dialed(t, path).call(http.MethodPost, "/users", nil, &users)
			if err == nil || !strings.Contains(err.Error(), "ended before it answered") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestFullQueue calls a server that accepts no more calls.
func TestFullQueue(t *testing.T) {
	path, _ := socketBeside(t)
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	for len(all) < 5000 {
		c, err := net.DialTimeout("unix", socketOf(path), time.Second)
		if err != nil {
			break
		}
		all = append(all, c)
	}
	if len(all) == 5000 {
		t.Skip("the queue of this system has no end")
	}
	if r, err := Dial(path); err == nil || !strings.Contains(err.Error(), "stopped or stuck") {
		t.Errorf("%v, %v", r, err)
	}
}

func TestNoServer(t *testing.T) {
	path, l := socketBeside(t)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // as a server that was killed
	for _, path := range []string{path, path + "other"} {
		if r, err := Dial(path); r != nil || err != nil {
			t.Errorf("%v, %v", r, err)
		}
	}
}

// TestProblems checks that every known error, wrapped or not, is the same error on the other
// side, and no other one.
func TestProblems(t *testing.T) {
	for _, kind := range kinds {
		err := problemOf(fmt.Errorf("device %q: %w: the rest", "revoked", kind.err)).err()
		if want := fmt.Sprintf("device %q: %v: the rest", "revoked", kind.err); err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
		for _, other := range kinds {
			if errors.Is(err, other.err) != (other.code == kind.code) {
				t.Errorf("%v is %v", err, other.err)
			}
		}
	}
	if err := problemOf(errors.New("exists")).err(); errors.Is(err, bolt.ErrExists) || err.Error() != "running server: exists" {
		t.Error(err)
	}
	if !Uncertain(problemOf(etcd.ErrUncertain).err()) || statusOf(etcd.ErrUncertain) != http.StatusInternalServerError {
		t.Error("a change that may have been made is told as one that was not")
	}
	if statusOf(enroll.ErrState) != http.StatusConflict || statusOf(errors.New("disk")) != http.StatusInternalServerError {
		t.Error("wrong status")
	}
}

// served is a server with a state that others change.
func served(t *testing.T) (server *bolt.Server, remote remoteRegistry) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	server, err := bolt.CreateServer(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	l := Service{State: &State{Server: server.Server, File: server, Closer: server}, Path: path, Keep: time.Hour}.Listen(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { l.Close() })
	return server, remoteRegistry{dialed(t, path)}
}

// TestNames has names that mean something in a URL arrive as they are.
func TestNames(t *testing.T) {
	server, remote := served(t)
	for _, name := range []string{"..", "a/b", "a b&name=c", "%2e%2e", "ü?#", "+"} {
		if err := remote.AddEntity(state.EntityRecord{Identity: name, Scheme: "NONE"}); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if err := remote.AddEntity(state.EntityRecord{Identity: name, Scheme: "NONE"}); !errors.Is(err, bolt.ErrExists) {
			t.Errorf("%q again: %v", name, err)
		}
		if err := remote.RevokeEntity(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		all, err := server.Entities()
		revoked := func(e state.EntityRecord) bool { return e.Identity == name && e.Revoked }
		if err != nil || !slices.ContainsFunc(all, revoked) {
			t.Errorf("%q: %+v, %v", name, all, err)
		}
		if err := errors.Join(remote.UnrevokeEntity(name), remote.RemoveEntity(name)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if err := remote.RemoveEntity(name); !errors.Is(err, state.ErrUnknown) {
			t.Errorf("%q is still there: %v", name, err)
		}
	}
}

// TestPasswords sends passwords of every byte, and one that is too long.
func TestPasswords(t *testing.T) {
	_, remote := served(t)
	password := make([]byte, 256)
	for i := range password {
		password[i] = byte(i)
	}
	if err := remote.AddUser("ada@example.com", password); err != nil {
		t.Fatal(err)
	}
	if err := remote.SetPassword("ada@example.com", []byte("other")); err != nil {
		t.Error(err)
	}
	if err := remote.AddUser("bob@example.com", make([]byte, maxPassword+1)); err == nil || !strings.Contains(err.Error(), "password of 65537 bytes") {
		t.Error(err)
	}
	users, err := remote.Users()
	if err != nil || len(users) != 1 {
		t.Errorf("%+v, %v", users, err)
	}
}

// TestKeeper checks, prunes and copies the state of a running server.
func TestKeeper(t *testing.T) {
	_, remote := served(t)
	k := remoteKeeper(remote)
	if _, err := k.Check(); err != nil {
		t.Error(err)
	}
	if _, err := k.Prune(); err != nil {
		t.Error(err)
	}
	var copied countingWriter
	if err := k.callLong(http.MethodGet, "/state/snapshot", &copied); err != nil || copied == 0 {
		t.Errorf("%d bytes, %v", copied, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(remote.state), "*.backup-*")); len(left) > 0 {
		t.Errorf("copies are left: %v", left)
	}
}

type countingWriter int

func (w *countingWriter) Write(p []byte) (int, error) {
	*w += countingWriter(len(p))
	return len(p), nil
}
