package isolated

import "encoding/binary"

// A kind of lanes. Those of a processor have its number: their end in the child stays on it.
// A caller that keeps the turn until the answer takes a lane of the processor that it runs on,
// which is free meanwhile: to wake a thread on another one takes several times as long as the whole
// way there and back on one.
type kind int

const (
	blocking kind = -1
	polled   kind = -2 // see lane.poll
)

// appendTo appends what the child is told of a kind: the number of the processor and one, or zero.
func (k kind) appendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint16(b, uint16(max(k, blocking)+1))
}

// toldKind reads what appendTo wrote.
func toldKind(b []byte) kind { return kind(binary.BigEndian.Uint16(b)) - 1 }
