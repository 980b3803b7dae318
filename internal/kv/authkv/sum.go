package authkv

import (
	"crypto/sha3"
	"encoding/binary"
)

// A sum is the LtHash16 of a set of records: the sum of their hashes, each a vector of
// numbers modulo 2^16. The zero value is that of the empty set.
type sum [lanes]uint16

const (
	lanes   = 1024
	sumSize = 2 * lanes
)

// add puts a record into the set.
func (s *sum) add(table string, key, value []byte) {
	h := hash(table, key, value)
	for i := range s {
		s[i] += h[i]
	}
}

// remove takes a record out of the set.
func (s *sum) remove(table string, key, value []byte) {
	h := hash(table, key, value)
	for i := range s {
		s[i] -= h[i]
	}
}

// hash expands a record with its place to the size of a sum.
func hash(table string, key, value []byte) (h sum) {
	x := sha3.NewSHAKE128()
	for _, part := range [][]byte{[]byte(table), key, value} {
		x.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		x.Write(part)
	}
	var b [sumSize]byte
	x.Read(b[:])
	for i := range h {
		h[i] = binary.BigEndian.Uint16(b[2*i:])
	}
	return h
}

func (s *sum) encode() []byte {
	b := make([]byte, 0, sumSize)
	for _, lane := range s {
		b = binary.BigEndian.AppendUint16(b, lane)
	}
	return b
}

func decodeSum(b []byte) (s sum) {
	for i := range s {
		s[i] = binary.BigEndian.Uint16(b[2*i:])
	}
	return s
}
