package state

import (
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/msl-hsm/msl-hsm/msl"
)

// pairKey returns the key of a record for a name and a serial number. The length comes
// first, so that no two pairs have the same key.
func pairKey(name string, serial int64) ([]byte, error) {
	if len(name) > msl.MaxName {
		return nil, fmt.Errorf("state: a name of %d bytes is too long to keep", len(name))
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(name)+8), uint16(len(name)))
	b = append(b, name...)
	return binary.BigEndian.AppendUint64(b, uint64(serial)), nil
}

// checkName rejects names that could not be stored or distinguished on a screen.
func checkName(what, name string) error {
	if name == "" || len(name) > msl.MaxName || !utf8.ValidString(name) {
		return fmt.Errorf("state: the name of the %s %w: want 1 to %d bytes of UTF-8", what, ErrName, msl.MaxName)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f {
			return fmt.Errorf("state: the name of the %s %w: it has control characters", what, ErrName)
		}
	}
	return nil
}

// largestID is the record of non-replayable ids: the largest, and when it arrived.
type largestID struct {
	id      int64
	touched time.Time
}

func (l largestID) encode() []byte {
	return encodeInts(l.id, seconds(l.touched))
}

func decodeLargestID(b []byte) (largestID, error) {
	n, err := decodeInts(b, 2)
	if err != nil {
		return largestID{}, err
	}
	return largestID{id: n[0], touched: time.Unix(n[1], 0)}, nil
}

// skippedShift is where the number of skipped numbers begins in the time of a record of renewals.
// Earlier versions, which know nothing of them, read a time far ahead, and keep the record until they
// renew it. They refuse a record with a fourth number, which was once written for every count, and now
// is only for one that has no room there.
const skippedShift, maxSkipped = 40, 1<<23 - 1

// newestSequence is the record of renewals.
type newestSequence struct {
	msl.Sequence
	touched time.Time
}

func (s newestSequence) encode() []byte {
	if s.Skipped > maxSkipped {
		return encodeInts(s.Newest, s.Asked, seconds(s.touched), s.Skipped)
	}
	return encodeInts(s.Newest, s.Asked, s.Skipped<<skippedShift|min(seconds(s.touched), 1<<skippedShift-1))
}

func decodeNewestSequence(b []byte) (newestSequence, error) {
	count := 3
	if len(b) == 4*8 {
		count = 4
	}
	n, err := decodeInts(b, count)
	if err != nil {
		return newestSequence{}, err
	}
	s := newestSequence{msl.Sequence{Newest: n[0], Asked: n[1], Skipped: n[2] >> skippedShift}, time.Unix(n[2]&(1<<skippedShift-1), 0)}
	if count == 4 {
		if s.Skipped != 0 || n[3] == 0 {
			return newestSequence{}, fmt.Errorf("%w: a record of renewals does not count skipped numbers", ErrDamaged)
		}
		s.Skipped = n[3]
	}
	return s, nil
}

// seconds returns the seconds since 1970; a clock before that has not been set.
func seconds(t time.Time) int64 { return max(0, t.Unix()) }

func encodeInts(n ...int64) []byte {
	b := make([]byte, 0, 8*len(n))
	for _, v := range n {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

// decodeInts reads numbers that are never negative.
func decodeInts(b []byte, count int) ([]int64, error) {
	if len(b)%8 == 0 && len(b) > 8*count {
		return nil, ErrNewer
	}
	if len(b) != 8*count {
		return nil, fmt.Errorf("%w: a record of numbers has %d bytes", ErrDamaged, len(b))
	}
	n := make([]int64, count)
	for i := range n {
		n[i] = int64(binary.BigEndian.Uint64(b[8*i:]))
		if n[i] < 0 {
			return nil, fmt.Errorf("%w: a number is negative", ErrDamaged)
		}
	}
	return n, nil
}
