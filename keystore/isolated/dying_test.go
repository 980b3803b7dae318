package isolated

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestLongAnswer has a child that answers far more than was asked for: the parent gives it
// up before its memory is full of that.
func TestLongAnswer(t *testing.T) {
	p, _ := newProcess(t)
	fds, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	own, theirs := newLane(fds[0]), newLane(fds[1])
	p.lanes[own], p.free = true, []*lane{own}
	sent := make(chan error, 1)
	go func() {
		defer theirs.close()
		_, err := theirs.receive(maxMessage)
		sent <- errors.Join(err, theirs.send(begin(nil, succeeded).bytes(make([]byte, 32<<20))))
	}()
	go p.reap()
	err = p.call(time.Minute, opSum, func(m message) message { return m.number(1) }, func(f *fields) error { f.bytes(); return nil })
	if !errors.As(err, new(*lostError)) || !p.isOver() {
		t.Errorf("a call with a long answer: %v; the child is over: %t", err, p.isOver())
	}
	if err := <-sent; err == nil {
		t.Error("the parent took all of the answer")
	}
}

// TestDying calls a child that has closed its sockets and was not waited for yet. The call
// fails when the child is no more, so that its repetition does not meet it again.
func TestDying(t *testing.T) {
	p, control := newProcess(t)
	control.Close()
	go p.reap()
	err := p.call(time.Minute, opLive, func(m message) message { return m }, func(*fields) error { return nil })
	if !errors.As(err, new(*lostError)) || !p.isOver() {
		t.Errorf("a call of a child that dies: %v; it is over: %t", err, p.isOver())
	}
	<-p.ended
}

// newProcess returns a child that does nothing, and its end of the control socket.
func newProcess(t *testing.T) (*process, *os.File) {
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
	p := &process{command: exec.Command("sleep", "60"), control: control, ended: make(chan struct{}),
		lanes: map[*lane]bool{}, places: make(chan struct{}, maxLanes), wait: time.Second}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	return p, theirs
}
