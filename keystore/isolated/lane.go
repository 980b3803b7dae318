package isolated

import (
	"encoding/binary"
	"fmt"
	"io"
	"syscall"
)

const (
	buffer     = 64 << 10  // of a lane, kept between calls
	maxMessage = 256 << 20 // bytes
)

// A lane carries one call at a time. Its socket blocks: the thread that asked is the one
// that the kernel wakes with the answer, as with a call into the module itself.
type lane struct {
	fd  int
	in  []byte
	out message

	filled int // bytes of in that the last message took
}

func newLane(fd int) *lane {
	return &lane{fd: fd, in: make([]byte, buffer), out: make(message, 0, buffer)}
}

// send writes a message.
func (l *lane) send(m message) error {
	if len(m) > maxMessage {
		return fmt.Errorf("isolated: a message of %d bytes: at most %d pass between the processes", len(m), maxMessage)
	}
	l.out = m.finish()
	return writeAll(l.fd, l.out)
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

// receive reads a message of at most longest bytes, which is valid until the next call.
func (l *lane) receive(longest int) ([]byte, error) {
	have, want := 0, prefix
	for have < want {
		n, err := syscall.Read(l.fd, l.in[have:])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.EOF
		}
		have += n
		l.filled = have
		if have >= prefix && want == prefix {
			size := binary.BigEndian.Uint32(l.in)
			if size == 0 || int64(size) > int64(longest) {
				return nil, errMalformed
			}
			want += int(size)
		}
		if want > len(l.in) && have == len(l.in) { // it grows with what has come, whatever the length says
			longer := make([]byte, min(2*len(l.in), want))
			copy(longer, l.in)
			clear(l.in)
			l.in = longer
		}
	}
	if have > want {
		return nil, errMalformed
	}
	return l.in[prefix:want], nil
}

// rest makes the lane ready for the next call: without what the last one was about,
// which may be secret, and without the memory of a long one.
func (l *lane) rest() {
	clear(l.in[:l.filled])
	clear(l.out)
	l.filled = 0
	if len(l.in) > buffer {
		l.in = make([]byte, buffer)
	}
	if cap(l.out) > buffer {
		l.out = make(message, 0, buffer)
	}
}

func (l *lane) close() { syscall.Close(l.fd) }
