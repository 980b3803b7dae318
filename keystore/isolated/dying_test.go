package isolated

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestLongAnswer has a child that answers far more than was asked for: the parent gives it
// up before its memory is full of that.
func TestLongAnswer(t *testing.T) {
	p, _ := startedProcess(t)
	own, theirs := lanes(t)
	p.lanes[own], p.free[blocking] = true, []*lane{own}
	sent := make(chan error, 1)
	go func() {
		_, err := theirs.request()
		sent <- errors.Join(err, theirs.send(begin(nil, succeeded).bytes(make([]byte, 32<<20))))
	}()
	go p.reap()
	err := p.call(time.Minute, opSum, func(m message) message { return m.number(1) }, func(f *fields) error { f.bytes(); return nil })
	if !errors.As(err, new(*lostError)) || !p.isOver() {
		t.Errorf("a call with a long answer: %v; the child is over: %t", err, p.isOver())
	}
	if err := <-sent; err == nil {
		t.Error("the parent took all of the answer")
	}
}

// TestDying calls a child that has closed its sockets and was not waited for yet. The call
// fails when the child is gone, so that its repetition does not meet it again.
func TestDying(t *testing.T) {
	p, control := startedProcess(t)
	control.Close()
	go p.reap()
	err := p.call(time.Minute, opLive, func(m message) message { return m }, func(*fields) error { return nil })
	if !errors.As(err, new(*lostError)) || !p.isOver() {
		t.Errorf("a call of a child that dies: %v; it is over: %t", err, p.isOver())
	}
	<-p.ended
}

// startedProcess returns a child that does nothing, and its end of the control socket.
func startedProcess(t *testing.T) (*process, *os.File) {
	t.Helper()
	fds, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	t.Cleanup(func() { theirs.Close() })
	control, err := controlOf(os.NewFile(uintptr(fds[0]), "control"))
	if err != nil {
		t.Fatal(err)
	}
	p := newProcess(&Config{Wait: time.Second}, exec.Command("sleep", "60"), control)
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	return p, theirs
}

// lanes returns the two ends of a lane.
func lanes(t *testing.T) (own, theirs *lane) {
	t.Helper()
	own, end, err := newLane()
	if err != nil {
		t.Fatal(err)
	}
	if end[1], err = syscall.Dup(end[1]); err != nil { // own closes the other one
		t.Fatal(err)
	}
	theirs = end.lane()
	t.Cleanup(theirs.close)
	return own, theirs
}
