package isolated

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	buffer     = 64 << 10  // of a lane, kept between calls
	maxMessage = 256 << 20 // bytes
)

// onSocket takes the place of a length where the message itself comes on the socket.
const onSocket = 0xffffffff

// A lane carries one call at a time: requests on one pipe, answers on another, and messages
// that may not fit into a pipe on a socket, which costs twice as much. All of them block: the
// thread that asked is the one that the kernel wakes with the answer, as with a call into the
// module itself. Where the answer comes soon, it also keeps its turn among the goroutines, see
// hold. Of several calls that take longer each would keep a thread, so that the parent waits
// for them in its poller, see ask. A message in a pipe is never longer than it has room for,
// so that nothing waits in a write to it.
type lane struct {
	in, out int // pipes
	long    int // socket
	back    int // the end of in to write to, by which the parent wakes itself; -1 in the child
	short   int // bytes of a message that a pipe has room for

	kind     kind
	file     *os.File        // in, which it closes; nil if it was not given to the poller
	readable syscall.RawConn // of file, if the lane is polled
	wait     reading         // for a message on in

	turn   byte // of the request, which its answer repeats
	input  []byte
	output message
	filled int // bytes of input that the last message took

	due   atomic.Int64 // the tick at which the call is too late; 0 if there is none
	limit atomic.Int64 // which it then has exceeded, in nanoseconds
	late  atomic.Bool  // it was too late
}

// A reading reads what has come, or waits for it.
type reading func(fd int, b []byte) (int, error)

// A laneEnd is what the child gets of a lane: the descriptors in, out and long.
type laneEnd [3]int

func (e laneEnd) close() {
	for _, fd := range e {
		syscall.Close(fd)
	}
}

// lane makes a lane of the child's end of it.
func (e laneEnd) lane() *lane {
	return &lane{in: e[0], out: e[1], long: e[2], back: -1, short: roomOf(e[1]), wait: syscall.Read, input: make([]byte, buffer), output: make(message, 0, buffer)}
}

// newLane returns a lane, and the child's end of it, to be closed.
func newLane() (own *lane, theirs laneEnd, err error) {
	var there, back [2]int
	long, err := socketPair()
	if err != nil {
		return nil, theirs, err
	}
	if there, err = pipe(); err != nil {
		laneEnd{long[0], long[1], -1}.close()
		return nil, theirs, err
	}
	if back, err = pipe(); err != nil {
		laneEnd{long[0], long[1], there[0]}.close()
		syscall.Close(there[1])
		return nil, theirs, err
	}
	syscall.SetNonblock(back[1], true) // a child that fills it does not keep the parent from waking itself
	own = laneEnd{back[0], there[1], long[0]}.lane()
	own.back = back[1]
	return own, laneEnd{there[0], back[1], long[1]}, nil
}

// poll gives in to the poller, which takes only what does not block at that time. From then
// on an answer wakes a thread that polls, if there is one. A lane that it does not take goes on blocking.
func (l *lane) poll() {
	syscall.SetNonblock(l.in, true)
	l.file = os.NewFile(uintptr(l.in), "lane")
	syscall.SetNonblock(l.in, false)
	if err := l.file.SetReadDeadline(time.Time{}); err == nil {
		l.readable, _ = l.file.SyscallConn() // which fails for a closed file only
	}
}

// ask sends a request. If the lane is polled, it returns when the answer can be read, and other
// goroutines run in this thread meanwhile.
func (l *lane) ask(request message) error {
	if l.readable == nil {
		return l.send(request)
	}
	sent := false
	var failed error
	err := l.readable.Read(func(uintptr) bool { // what comes after the first call is noticed
		if sent {
			return true
		}
		sent, failed = true, l.send(request)
		return failed != nil
	})
	return errors.Join(failed, err)
}

// send writes a message.
func (l *lane) send(m message) error {
	if len(m) > maxMessage {
		return fmt.Errorf("isolated: a message of %d bytes: at most %d pass between the processes", len(m), maxMessage)
	}
	l.output = m.finish(l.turn)
	if len(l.output) <= l.short {
		return writePipe(l.out, l.output)
	}
	mark := [prefix]byte{prefix - 1: l.turn}
	binary.BigEndian.PutUint32(mark[:], onSocket)
	if err := writePipe(l.out, mark[:]); err != nil {
		return err
	}
	return writeAll(l.long, l.output)
}

// writePipe writes what a pipe has room for.
func writePipe(fd int, b []byte) error {
	for {
		n, err := writeHeld(fd, b)
		switch {
		case err == syscall.EINTR:
		case err == nil && n < len(b):
			return io.ErrShortWrite
		default:
			return err
		}
	}
}

func writeAll(fd int, rest []byte) error {
	for len(rest) > 0 {
		n, err := syscall.SendmsgN(fd, rest, nil, nil, noSignal)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// request reads a request, and takes up its turn.
func (l *lane) request() ([]byte, error) {
	m, err := l.receive(maxMessage)
	if err == nil {
		l.turn = l.input[prefix-1]
	}
	return m, err
}

// answer reads the answer to the last request. An answer to another one, as from a child that
// answers twice, is malformed.
func (l *lane) answer(longest int) ([]byte, error) {
	m, err := l.receive(longest)
	if err == nil && l.input[prefix-1] != l.turn {
		err = errMalformed
	}
	return m, err
}

// receive reads a message of at most longest bytes, which is valid until the next call.
func (l *lane) receive(longest int) ([]byte, error) {
	m, err := l.receiveFrom(l.in, l.wait, min(longest, buffer-prefix))
	if err == errOnSocket {
		m, err = l.receiveFrom(l.long, syscall.Read, longest)
	}
	return m, err
}

var errOnSocket = fmt.Errorf("%w: it is on the socket", errMalformed)

func (l *lane) receiveFrom(fd int, read reading, longest int) ([]byte, error) {
	have, want := 0, prefix
	for have < want {
		n, err := read(fd, l.input[have:])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.EOF
		}
		have += n
		l.filled = max(l.filled, have)
		if have >= prefix && want == prefix {
			size := binary.BigEndian.Uint32(l.input)
			if size == onSocket && have == prefix && fd == l.in {
				return nil, errOnSocket
			}
			if size == 0 || int64(size) > int64(longest) {
				return nil, errMalformed
			}
			want += int(size)
		}
		if want > len(l.input) && have == len(l.input) { // it grows with what has come, whatever the length says
			longer := make([]byte, min(2*len(l.input), want))
			copy(longer, l.input)
			clear(l.input)
			l.input = longer
		}
	}
	if have > want {
		return nil, errMalformed
	}
	return l.input[prefix:want], nil
}

// interrupt wakes a caller who waits for an answer, or for room on the socket, with an error.
func (l *lane) interrupt() {
	syscall.Shutdown(l.long, syscall.SHUT_RDWR)
	syscall.Write(l.back, make([]byte, prefix)) // no message is empty
}

// rest makes the lane ready for the next call: without what the last one was about,
// which may be secret, and without the memory of a long one.
func (l *lane) rest() {
	clear(l.input[:l.filled])
	clear(l.output)
	l.filled = 0
	if len(l.input) > buffer {
		l.input = make([]byte, buffer)
	}
	if cap(l.output) > buffer {
		l.output = make(message, 0, buffer)
	}
}

// close closes a lane that nobody uses. The data of a failed call is left in it.
func (l *lane) close() {
	clear(l.input)
	clear(l.output[:cap(l.output)])
	in := l.in
	if l.file != nil {
		l.file.Close()
		in = -1
	}
	laneEnd{in, l.out, l.long}.close()
	if l.back >= 0 {
		syscall.Close(l.back)
	}
}
