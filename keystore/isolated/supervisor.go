package isolated

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/outage"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// Pauses after a child that did not open its store, or ended when it had just done so. One
// that lived longer than the longest pause is replaced at once. A device that is there again
// is found within a second.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 500 * time.Millisecond
)

func longer(pause time.Duration) time.Duration { return min(max(2*pause, firstPause), longestPause) }

// A supervisor keeps a child running.
type supervisor struct {
	config Config
	pin    *pin

	chosen chosen
	lost   outage.Outage // as logged
	told   reasons       // in this outage

	mu      sync.Mutex
	now     *process      // or nil
	err     error         // why there is none, if the last start failed
	changed chan struct{} // closed when now or err changes
	closed  bool
	closing chan struct{} // closed with closed
	over    chan struct{} // closed when the last child has ended
}

func newSupervisor(c Config) *supervisor {
	return &supervisor{config: c, lost: outage.Outage{Trust: outage.Device}, pin: newPIN(c.PIN), changed: make(chan struct{}), closing: make(chan struct{}), over: make(chan struct{})}
}

// begin starts the first child, and waits until its store is open.
func (s *supervisor) begin() error {
	first := make(chan error, 1)
	go s.run(first)
	return <-first
}

// run starts children one after the other until the store is closed. The kernel ends a
// child with the thread that started it: this one, which is locked to live as long.
func (s *supervisor) run(first chan<- error) {
	runtime.LockOSThread()
	defer close(s.over)
	defer s.lost.Stop()
	var pause time.Duration
	unclear := 0 // times in a row that the PIN was given without a clear answer
	vain := 0    // children in a row whose device only failed
	for generation := uint64(1); ; generation++ {
		began := time.Now()
		if generation > 1 {
			s.reread()
		}
		other := s.pin.replaced()
		p, err := s.config.start(generation, vain, s.pin, s.chosen.message(), s.closing)
		if generation == 1 {
			first <- err
		}
		s.set(p, err)
		if generation > 1 && !s.closes(0, nil) {
			s.log(err)
		}
		switch {
		case err == nil:
			s.attend(p)
			unclear, vain = 0, p.vain.length()
			if pause = longer(pause); time.Since(began) > longestPause {
				pause = 0
			}
		case generation == 1:
			return
		case errors.Is(err, keystore.ErrPIN): // one that was refused is not tried again
			s.await(other)
		case errors.Is(err, keystore.ErrUnclear):
			unclear += 2 // as often as a start gives it
			pause = keystore.PINPause(unclear)
		default:
			pause = longer(pause)
		}
		if s.closes(pause, other) {
			return
		}
	}
}

// await waits for another PIN, or until the store is closed.
func (s *supervisor) await(other <-chan struct{}) {
	select {
	case <-other:
	case <-s.closing:
	}
}

// closes reports whether the store is closed, or will be within a pause, which another PIN ends.
func (s *supervisor) closes(pause time.Duration, other <-chan struct{}) bool {
	select {
	case <-s.closing:
		return true
	default:
	}
	select {
	case <-s.closing:
		return true
	case <-other:
		return false
	case <-time.After(pause):
		return false
	}
}

// attend waits for the end of a child.
func (s *supervisor) attend(p *process) {
	var watches sync.WaitGroup
	watches.Go(func() { p.watchMemory(s.config.Memory) })
	watches.Go(p.watchCalls)
	p.reap()
	watches.Wait()
	s.set(nil, nil)
	select {
	case <-s.closing:
	default:
		s.tellLost("device lost", p.lost(nil))
	}
}

// maxReasons bounds the lines about one outage.
const maxReasons = 8

// reasons are why children ended or could not be replaced.
type reasons []string

// isNew reports whether a reason is to be told: each once, but a refused PIN each time, since none
// is tried twice.
func (r *reasons) isNew(err error) bool {
	if errors.Is(err, keystore.ErrPIN) {
		return true
	}
	if len(*r) == maxReasons || slices.Contains(*r, err.Error()) {
		return false
	}
	*r = append(*r, err.Error())
	return true
}

// log tells that a child follows another, or that it does not.
func (s *supervisor) log(err error) {
	if err != nil {
		s.tellLost("the key store process cannot be replaced", err)
		return
	}
	s.lost.Worked(time.Now(), func() { s.config.log().Info("device back: the key store process was replaced") })
}

// tellLost logs why there is no child, if the log does not have it since the outage began.
func (s *supervisor) tellLost(what string, err error) {
	s.lost.Failed(err, func() { s.told = nil })
	if s.told.isNew(err) {
		s.config.log().Error(what, "error", err)
	}
}

func (s *supervisor) set(p *process, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && p != nil {
		p.end("is closed")
	}
	s.now, s.err = p, err
	close(s.changed)
	s.changed = make(chan struct{})
}

// look returns the child that runs, or why there is none, or what to wait for.
func (s *supervisor) look() (p *process, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, nil, errClosed
	case s.now != nil && !s.now.isOver():
		return s.now, nil, nil
	case s.now == nil && s.err != nil:
		return nil, nil, s.err
	}
	return nil, s.changed, nil
}

// process returns the child, and waits for one that is being started.
func (s *supervisor) process() (*process, error) {
	p, changed, err := s.look()
	if changed == nil {
		return p, err
	}
	timer := time.NewTimer(s.config.wait())
	defer timer.Stop()
	for changed != nil {
		select {
		case <-changed:
		case <-s.closing:
		case <-timer.C:
			return nil, fmt.Errorf("isolated: the process of the key store is being replaced: %w", keystore.ErrUnavailable)
		}
		p, changed, err = s.look()
	}
	return p, err
}

// do makes a call, and makes it once more in the next child if the child ended meanwhile
// and the call can be repeated.
func (s *supervisor) do(op operation, call func(*process) error) error {
	for again := op.repeatable(); ; again = false {
		p, err := s.process()
		if err != nil {
			return s.unanswered(err)
		}
		err = call(p)
		var lost *lostError
		switch {
		case !errors.As(err, &lost):
			return err
		case !again || lost.late:
			return s.unanswered(err)
		}
	}
}

// unanswered reports an operation that no child has answered, and returns its error.
func (s *supervisor) unanswered(err error) error {
	if s.config.Calls != nil {
		s.config.Calls(keystore.Call{Err: err})
	}
	return err
}

// end closes the store in the child.
func (s *supervisor) end() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.closing)
	p := s.now
	s.mu.Unlock()
	var err error
	if p != nil && !p.isOver() {
		err = p.call(s.config.limit(), opShutdown, func(m message) message { return m }, func(*fields) error { return nil })
		p.end("is closed")
	}
	<-s.over
	s.pin.close()
	if errors.As(err, new(*lostError)) {
		return nil // its keys went with it
	}
	return err
}
