package cli

import (
	"net"
	"net/rpc"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// Mute never answers.
type Mute struct{ release chan struct{} }

func (m *Mute) Wait(struct{}, *struct{}) error { <-m.release; return nil }

// socketBeside listens where the server of a state file would.
func socketBeside(t *testing.T) (state string, l net.Listener) {
	t.Helper()
	state = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", admin.SocketOf(state))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return state, l
}

func TestStuckServer(t *testing.T) {
	state, l := socketBeside(t)
	mute := &Mute{make(chan struct{})}
	server := rpc.NewServer()
	server.Register(mute)
	go server.Accept(l)
	r, err := admin.DialServer(state)
	if err != nil || r == nil {
		t.Fatal(err)
	}
	defer r.Close()
	start := time.Now()
	err = r.CallFor(50*time.Millisecond, "Mute.Wait", struct{}{}, new(struct{}))
	if err == nil || !strings.Contains(err.Error(), "did not answer in 50ms: it is stopped or stuck") || time.Since(start) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	if strings.Contains(err.Error(), "\n") || exit.Code(err) != exit.Failure {
		t.Errorf("exit code %d: %q", exit.Code(err), err)
	}
	close(mute.release)
}

// TestPatienceEndsWithAnswer waits between calls for longer than a call may take.
func TestPatienceEndsWithAnswer(t *testing.T) {
	state, l := socketBeside(t)
	mute := &Mute{make(chan struct{})}
	close(mute.release)
	server := rpc.NewServer()
	server.Register(mute)
	go server.Accept(l)
	r, err := admin.DialServer(state)
	if err != nil || r == nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 2 {
		if err := r.CallFor(100*time.Millisecond, "Mute.Wait", struct{}{}, new(struct{})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(150 * time.Millisecond)
	}
	if err := r.Call("Keeper.Alive", struct{}{}, new(struct{})); err == nil || !strings.Contains(err.Error(), "runs another version: restart it") {
		t.Errorf("another version: %v", err)
	}
}

// TestDyingServer ends a server while it is asked.
func TestDyingServer(t *testing.T) {
	state, l := socketBeside(t)
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
		}
	}()
	r, err := admin.DialServer(state)
	if err != nil || r == nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = r.Call("Registrar.Users", struct{}{}, new(struct{}))
	if err == nil || !strings.Contains(err.Error(), "ended before it answered") {
		t.Errorf("error %v", err)
	}
}

// TestFullQueue asks a server that takes no calls any more.
func TestFullQueue(t *testing.T) {
	state, _ := socketBeside(t)
	for n := 0; ; n++ {
		r, err := admin.DialServer(state)
		if err != nil {
			if !strings.Contains(err.Error(), "stopped or stuck") {
				t.Error(err)
			}
			return
		}
		if r == nil || n > 100000 {
			t.Fatalf("after %d calls: no server is there", n)
		}
		defer r.Close()
		if n > 4096 {
			t.Skip("the queue of this system has no end")
		}
	}
}

func TestNoServer(t *testing.T) {
	state, l := socketBeside(t)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // as a server that was killed
	for _, path := range []string{state, state + "other"} {
		if r, err := admin.DialServer(path); r != nil || err != nil {
			t.Errorf("%v, %v", r, err)
		}
	}
}
