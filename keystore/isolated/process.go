package isolated

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/pace"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A process is a child with an open store.
type process struct {
	generation uint64 // of the handles that are valid in it
	command    *exec.Cmd
	control    *net.UnixConn
	places     chan struct{} // has an element for each call under way
	wait       time.Duration // for a place
	ended      chan struct{} // closed when the child has ended
	pace       pace.Pace
	memory     *os.File      // tells how much it occupies, or nil
	limit      time.Duration // of a call, unless it may take longer
	tick       time.Duration // see watchCalls
	ticks      atomic.Int64
	turns      turns
	failing    atomic.Pointer[vainTime] // while the device only fails, or nil
	vain       vainRow
	told
	ready atomic.Bool // the store is open

	mu    sync.Mutex
	why   string // it was ended, or ""
	lanes map[*lane]bool
	free  map[kind][]*lane // that nobody uses, of which the last used is used next
}

// start starts a child and waits until its store is open, or closing is closed.
func (c *Config) start(generation uint64, vain int, pin *pin, chosen message, closing <-chan struct{}) (*process, error) {
	p, err := c.launch(pin)
	if err != nil {
		return nil, fmt.Errorf("isolated: the process of the key store cannot be started: %v: %w", err, keystore.ErrUnavailable)
	}
	p.generation, p.vain.before = generation, vain
	opened := make(chan struct{})
	defer close(opened)
	go func() {
		select {
		case <-closing:
			p.end("is closed")
		case <-opened:
		}
	}()
	if err := p.open(c, chosen); err != nil {
		return nil, err
	}
	return p, nil
}

// launch starts a child, which has been given nothing but the PIN.
func (c *Config) launch(pin *pin) (*process, error) {
	fds, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	defer theirs.Close() // else the end of a child that never opens its store would not show
	control, err := controlOf(os.NewFile(uintptr(fds[0]), "control"))
	if err != nil {
		return nil, err
	}
	p := newProcess(c, c.Command(), control)
	p.command.ExtraFiles = []*os.File{theirs}
	secret, err := pin.pipe()
	if err != nil {
		return nil, errors.Join(err, control.Close())
	}
	if secret != nil {
		defer secret.Close()
		p.command.ExtraFiles = append(p.command.ExtraFiles, secret)
	}
	bindToParent(p.command)
	keepDescriptors()
	if err := p.command.Start(); err != nil {
		return nil, errors.Join(err, control.Close())
	}
	p.memory = openMemory(p.command.Process.Pid)
	return p, nil
}

func newProcess(c *Config, command *exec.Cmd, control *net.UnixConn) *process {
	return &process{command: command, control: control, ended: make(chan struct{}), lanes: map[*lane]bool{}, free: map[kind][]*lane{}, told: told{functions: map[string]bool{}},
		places: make(chan struct{}, maxLanes), wait: c.wait(), limit: c.limit(), tick: ticksOf(c.limit()), turns: turns{able: canHold(), born: time.Now()}}
}

// keepDescriptors keeps from the child what this process inherited itself, such as the
// sockets of systemd or a file with a secret: what it opened the child does not get anyway.
func keepDescriptors() {
	const all = "/dev/fd"
	open, _ := os.ReadDir(all) // without it there is nothing to go by
	for _, one := range open {
		if fd, err := strconv.Atoi(one.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

// open gives the child its settings and the chosen versions, and waits for its store.
func (p *process) open(c *Config, chosen message) error {
	p.control.SetDeadline(time.Now().Add(c.startLimit()))
	err := errors.Join(writeSettings(p.control, c.Settings), writeSettings(p.control, chosen))
	lines := events(p.control)
	for err == nil && lines.Scan() {
		var e event
		switch err = json.Unmarshal(lines.Bytes(), &e); {
		case err != nil:
		case e.Ready:
			p.control.SetDeadline(time.Time{})
			p.ready.Store(true)
			go p.listen(lines, c)
			return nil
		case e.Failure != nil:
			p.stop()
			return newChildError(e.Failure.Text, e.Failure.Kinds)
		default:
			p.heard(e, c)
		}
	}
	late := errors.Is(errors.Join(err, lines.Err()), os.ErrDeadlineExceeded)
	p.stop()
	if late {
		return p.unopened(fmt.Sprintf("the key store was not open after %v", c.startLimit()))
	}
	return p.unopened(fmt.Sprintf("the process of the key store ended before the store was open (%v)", p.command.ProcessState))
}

// stop ends a child whose store did not open.
func (p *process) stop() {
	p.end("did not open")
	p.reap()
}

// listen passes on what the child logs and measures, until its end.
func (p *process) listen(lines *bufio.Scanner, c *Config) {
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			p.heard(e, c)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) { // it would wait for somebody to read the rest
		p.end("told something without an end")
	}
}

// end kills the child. Calls that are under way fail.
func (p *process) end(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why != "" {
		return
	}
	p.why = why
	p.control.Close()
	p.kill()
	for l := range p.lanes { // a child in the kernel may not end at once
		l.interrupt()
	}
	for _, free := range p.free {
		for _, l := range free {
			delete(p.lanes, l)
			l.close()
		}
	}
	clear(p.free)
}

// isOver reports whether the child was ended.
func (p *process) isOver() bool { return p.reason() != "" }

// reason returns why the child was ended, or nothing.
func (p *process) reason() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.why
}

// giveUp ends the child because of a call that is under way: it is not known which, so that none of
// them is made again.
func (p *process) giveUp(why string) {
	p.mu.Lock()
	for l := range p.lanes {
		if l.due.Load() > 0 {
			l.late.Store(true)
		}
	}
	p.mu.Unlock()
	p.end(why)
}

// lost returns the error of a call that failed with err, which means that the child has
// ended, or has to be.
func (p *process) lost(err error) error {
	select {
	case <-p.ended:
	case <-time.After(time.Second): // it closed the lane and lives
		p.end(fmt.Sprintf("did not answer properly (%v)", err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return &lostError{why: p.why}
}

// reap waits until the child has ended.
func (p *process) reap() {
	p.command.Wait()
	p.memory.Close()
	p.end(fmt.Sprintf("has ended (%v)", p.command.ProcessState))
	close(p.ended)
}

// enter waits for a place.
func (p *process) enter() error {
	select {
	case p.places <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(p.wait)
	defer timer.Stop()
	select {
	case p.places <- struct{}{}:
		return nil
	case <-p.ended:
		return p.lost(nil)
	case <-timer.C:
		return fmt.Errorf("isolated: %d calls are under way: %w", maxLanes, keystore.ErrBusy)
	}
}

// errNoLane means that the child does not take another lane: it has ended, or is about to.
var errNoLane = errors.New("it takes no lane")

// lane returns a lane of a kind that nobody uses. There are at most maxLanes of processors.
func (p *process) lane(of kind) (*lane, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why != "" {
		return nil, &lostError{why: p.why}
	}
	if of >= 0 && len(p.free[of]) == 0 && len(p.lanes) >= maxLanes {
		of = blocking
	}
	if free := p.free[of]; len(free) > 0 {
		p.free[of] = free[:len(free)-1]
		return free[len(free)-1], nil
	}
	return p.anotherLane(of)
}

// anotherLane makes a lane and passes its end to the child.
func (p *process) anotherLane(of kind) (*lane, error) {
	l, theirs, err := newLane()
	if err != nil {
		return nil, fmt.Errorf("isolated: a way to the process of the key store: %v: %w", err, keystore.ErrBusy)
	}
	defer syscall.Close(theirs[0])
	defer syscall.Close(theirs[2]) // the parent keeps the other one, to wake itself
	if _, _, err := p.control.WriteMsgUnix(of.appendTo(nil), syscall.UnixRights(theirs[:]...), nil); err != nil {
		l.close()
		return nil, fmt.Errorf("%w: %w", errNoLane, err)
	}
	if l.kind = of; of == polled {
		l.poll()
	}
	p.lanes[l] = true
	return l, nil
}

// put takes a lane back, or closes it.
func (p *process) put(l *lane, sound bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sound && p.why == "" {
		l.rest()
		p.free[l.kind] = append(p.free[l.kind], l)
		return
	}
	delete(p.lanes, l)
	l.close()
}

// call sends a request, and gives what the answer has to use. The child is ended if it
// does not answer within limit.
func (p *process) call(limit time.Duration, op operation, write func(message) message, use func(*fields) error) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer func() { <-p.places }()
	quick := op.isPartOfMessage() && p.pace.Computes() && p.turns.mayHold()
	l, err := p.lane(p.kind(quick))
	if errors.Is(err, errNoLane) {
		return p.lost(err) // when it has ended, so that a repeated call does not meet it again
	}
	if err != nil {
		return err
	}
	if l.wait = syscall.Read; quick {
		l.wait = p.turns.read
	}
	request := write(begin(l.output, byte(op)))
	start := timed(&p.pace, op, len(request))
	answer, err := p.exchange(l, limit, request, longestAnswer(op, len(request)))
	switch {
	case err != nil && l.late.Load():
		p.put(l, false)
		return &lostError{why: cmp.Or(p.reason(), fmt.Sprintf("did not answer for %v", limit)), late: true}
	case err != nil:
		p.put(l, false)
		return p.lost(err)
	}
	if err = judge(&fields{rest: answer}, use); err == nil {
		p.pace.End(start)
	}
	p.put(l, true)
	p.note(op, err)
	return err
}

// kind returns the kind of lane for a call; for one beside others it is polled.
func (p *process) kind(quick bool) kind {
	switch {
	case quick:
		return hereKind()
	case len(p.places) > 1:
		return polled
	}
	return blocking
}

// exchange sends a request and returns the answer.
func (p *process) exchange(l *lane, limit time.Duration, request message, longest int) ([]byte, error) {
	p.begin(l, limit)
	defer l.due.Store(0)
	l.turn++
	if err := l.ask(request); err != nil {
		return nil, err
	}
	return l.answer(longest)
}

// longestAnswer bounds the memory that a child can make the parent take: what a key makes
// of data is little longer than it, and only a list has a length of its own.
func longestAnswer(op operation, request int) int {
	if op == opList {
		return maxMessage
	}
	return min(request+2*maxRandom, maxMessage)
}

// timed returns when an operation with a session key begins, if it is to be timed.
func timed(p *pace.Pace, op operation, size int) time.Time {
	switch op {
	case opEncrypt, opDecrypt, opSum:
		return p.Begin(size)
	}
	return time.Time{}
}

// judge tells an answer from an error.
func judge(f *fields, use func(*fields) error) error {
	switch result := f.byte(); {
	case f.bad, result > failed:
		return fmt.Errorf("%w: %w", errMalformed, keystore.ErrUnavailable)
	case result == failed:
		set, text := f.number(), f.text()
		if err := f.end(); err != nil {
			return fmt.Errorf("%w: %w", err, keystore.ErrUnavailable)
		}
		return newChildError(text, set)
	}
	err := use(f)
	if end := f.end(); err == nil && end != nil {
		err = fmt.Errorf("%w: %w", end, keystore.ErrUnavailable)
	}
	return err
}
