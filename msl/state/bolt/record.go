package bolt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"time"
	"unicode/utf8"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/msl"
)

// maxName bounds identities and user names: they are keys of the file, and
// bbolt bounds those.
const maxName = 4096

const sumSize = 4

// sum covers the place of a record too: a record that stands in another's place
// is as bad as a changed one.
func sum(bucket string, key, payload []byte) uint32 {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	s := crc32.Update(0, castagnoli, []byte(bucket))
	s = crc32.Update(s, castagnoli, key)
	return crc32.Update(s, castagnoli, payload)
}

// frame puts a checksum before a payload.
func frame(bucket string, key, payload []byte) []byte {
	b := make([]byte, sumSize, sumSize+len(payload))
	binary.BigEndian.PutUint32(b, sum(bucket, key, payload))
	return append(b, payload...)
}

// unframe returns the payload that frame was given. It is a part of value.
func unframe(bucket string, key, value []byte) ([]byte, error) {
	if len(value) < sumSize || binary.BigEndian.Uint32(value) != sum(bucket, key, value[sumSize:]) {
		return nil, fmt.Errorf("%w: a record in %q does not fit its checksum", ErrDamaged, bucket)
	}
	return value[sumSize:], nil
}

// get returns the payload of a record, nil if there is none. It is valid until
// the transaction ends.
func get(tx *bbolt.Tx, bucket string, key []byte) ([]byte, error) {
	value := tx.Bucket([]byte(bucket)).Get(key)
	if value == nil {
		return nil, nil
	}
	return unframe(bucket, key, value)
}

func put(tx *bbolt.Tx, bucket string, key, payload []byte) error {
	return tx.Bucket([]byte(bucket)).Put(key, frame(bucket, key, payload))
}

func remove(tx *bbolt.Tx, bucket string, key []byte) error {
	return tx.Bucket([]byte(bucket)).Delete(key)
}

// pairKey is the key of a record of a name and a serial number. The length
// comes first, so that no two pairs have the same key.
func pairKey(name string, serial int64) ([]byte, error) {
	if len(name) > maxName {
		return nil, fmt.Errorf("bolt: a name of %d bytes is too long to keep", len(name))
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(name)+8), uint16(len(name)))
	b = append(b, name...)
	return binary.BigEndian.AppendUint64(b, uint64(serial)), nil
}

// checkName refuses names that could not be kept or told apart on a screen.
func checkName(what, name string) error {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) {
		return fmt.Errorf("bolt: the name of an %s is 1 to %d bytes of UTF-8", what, maxName)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f {
			return fmt.Errorf("bolt: the name of an %s has no control characters", what)
		}
	}
	return nil
}

// largestID is the record of non-replayable ids: the largest and when it came.
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

// newestSequence is the record of renewals.
type newestSequence struct {
	msl.Sequence
	touched time.Time
}

func (s newestSequence) encode() []byte {
	return encodeInts(s.Newest, s.Asked, seconds(s.touched))
}

func decodeNewestSequence(b []byte) (newestSequence, error) {
	n, err := decodeInts(b, 3)
	if err != nil {
		return newestSequence{}, err
	}
	return newestSequence{msl.Sequence{Newest: n[0], Asked: n[1]}, time.Unix(n[2], 0)}, nil
}

// seconds is a time since 1970; a clock that is before that is not set yet.
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

// decodeJSON refuses unknown fields: what restricts an entity in a later
// version must not be overlooked by this one.
func decodeJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: a record does not decode", ErrDamaged)
	}
	return nil
}
