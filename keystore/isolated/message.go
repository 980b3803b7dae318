package isolated

import (
	"encoding/binary"
	"errors"
)

// A message is a request or an answer that is being written.
type message []byte

// prefix is what stands before a message on a lane: its length in 4 bytes, and its turn.
const prefix = 5

// begin starts a message, with room for the prefix.
func begin(reuse []byte, first byte) message { return append(reuse[:0], 0, 0, 0, 0, 0, first) }

// finish writes the prefix of the message.
func (m message) finish(turn byte) message {
	binary.BigEndian.PutUint32(m, uint32(len(m)-prefix))
	m[prefix-1] = turn
	return m
}

func (m message) number(n uint64) message { return binary.AppendUvarint(m, n) }

func (m message) bytes(b []byte) message { return append(m.number(uint64(len(b))), b...) }

func (m message) text(s string) message { return append(m.number(uint64(len(s))), s...) }

var errMalformed = errors.New("isolated: a message between the processes is malformed")

// A fields reads a message. A field that is missing or too long reads as empty, and end reports
// that.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) fail() {
	f.rest, f.bad = nil, true
}

func (f *fields) byte() byte {
	if len(f.rest) == 0 {
		f.fail()
		return 0
	}
	b := f.rest[0]
	f.rest = f.rest[1:]
	return b
}

func (f *fields) number() uint64 {
	n, size := binary.Uvarint(f.rest)
	if size <= 0 {
		f.fail()
		return 0
	}
	f.rest = f.rest[size:]
	return n
}

// bytes returns a part of the message itself.
func (f *fields) bytes() []byte {
	n := f.number()
	if n > uint64(len(f.rest)) {
		f.fail()
		return nil
	}
	b := f.rest[:n:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) text() string { return string(f.bytes()) }

// end returns an error unless the message was read whole.
func (f *fields) end() error {
	if f.bad || len(f.rest) > 0 {
		return errMalformed
	}
	return nil
}
