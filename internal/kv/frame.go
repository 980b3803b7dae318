package kv

import (
	"encoding/binary"
	"hash/crc32"
)

// sumSize is the size of the checksum before a framed value.
const sumSize = 4

// sum also covers the key and table of a record: a record found under another key is as
// bad as a changed one.
func sum(table string, key, value []byte) uint32 {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	s := crc32.Update(0, castagnoli, []byte(table))
	s = crc32.Update(s, castagnoli, key)
	return crc32.Update(s, castagnoli, value)
}

// Frame returns a value in the form that implementations store: prefixed with a CRC-32C,
// in 4 bytes, over its table, key and value.
func Frame(table string, key, value []byte) []byte {
	b := make([]byte, sumSize, sumSize+len(value))
	binary.BigEndian.PutUint32(b, sum(table, key, value))
	return append(b, value...)
}

// Unframe returns the value that was passed to Frame, as a part of framed, and whether
// the checksum matches.
func Unframe(table string, key, framed []byte) (value []byte, ok bool) {
	if len(framed) < sumSize || binary.BigEndian.Uint32(framed) != sum(table, key, framed[sumSize:]) {
		return nil, false
	}
	return framed[sumSize:], true
}
