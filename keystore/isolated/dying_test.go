package isolated

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestDying calls a child that has closed its sockets and was not waited for yet. The call
// fails when the child is no more, so that its repetition does not meet it again.
func TestDying(t *testing.T) {
	fds, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	os.NewFile(uintptr(fds[1]), "control").Close()
	control, err := controlOf(os.NewFile(uintptr(fds[0]), "control"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{command: exec.Command("sleep", "60"), control: control, ended: make(chan struct{}),
		lanes: map[*lane]bool{}, places: make(chan struct{}, maxLanes), wait: time.Second}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go p.reap()
	err = p.call(time.Minute, opLive, func(m message) message { return m }, func(*fields) error { return nil })
	if !errors.As(err, new(*lostError)) || !p.isOver() {
		t.Errorf("a call of a child that dies: %v; it is over: %t", err, p.isOver())
	}
	<-p.ended
}
