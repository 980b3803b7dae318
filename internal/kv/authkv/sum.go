package authkv

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/binary"
)

// A sum is the LtHash16 of a set of records: the sum of their hashes, each a vector of
// numbers modulo 2^16. The zero value is that of the empty set. Each word has four of
// them, the first in its highest bits.
type sum [words]uint64

const (
	words   = 256
	sumSize = 8 * words
)

// low has all bits of the numbers in a word except the highest of each, which are in
// high.
const (
	low  = 0x7fff7fff7fff7fff
	high = ^uint64(low)
)

// add adds a record to the set.
func (s *sum) add(table string, key, value []byte) {
	s.plus(hash(&room{}, table, key, value))
}

// remove removes a record from the set.
func (s *sum) remove(table string, key, value []byte) {
	s.minus(hash(&room{}, table, key, value))
}

// plus adds the numbers of a hash. No carry passes from one to the next.
func (s *sum) plus(h *[sumSize]byte) {
	for i, a := range s {
		b := binary.BigEndian.Uint64(h[8*i:])
		s[i] = (a&low + b&low) ^ (a^b)&high
	}
}

// minus subtracts them.
func (s *sum) minus(h *[sumSize]byte) {
	for i, a := range s {
		b := binary.BigEndian.Uint64(h[8*i:])
		s[i] = ((a | high) - b&low) ^ (a^^b)&high
	}
}

func (s *sum) plusSum(other *sum) {
	for i, b := range other {
		s[i] = (s[i]&low + b&low) ^ (s[i]^b)&high
	}
}

// A room is the working memory of a hasher, reused for the next hash.
type room struct {
	text []byte
	out  [sumSize]byte
}

// write returns a record with its table and key as one text.
func (r *room) write(table string, key, value []byte) []byte {
	t := binary.BigEndian.AppendUint64(r.text[:0], uint64(len(table)))
	t = append(t, table...)
	t = binary.BigEndian.AppendUint64(t, uint64(len(key)))
	t = append(t, key...)
	t = binary.BigEndian.AppendUint64(t, uint64(len(value)))
	r.text = append(t, value...)
	return r.text
}

// A hasher expands a record with its table and key to the size of a sum, in the room.
type hasher func(in *room, table string, key, value []byte) *[sumSize]byte

// hash does it with SHAKE128.
func hash(in *room, table string, key, value []byte) *[sumSize]byte {
	x := sha3.NewSHAKE128()
	x.Write(in.write(table, key, value))
	x.Read(in.out[:])
	return &in.out
}

// hashFast does it with SHA-256, whose result is the key for AES-256 in counter mode, for
// stores in which each change waits for the previous one.
func hashFast(in *room, table string, key, value []byte) *[sumSize]byte {
	seed := sha256.Sum256(in.write(table, key, value))
	block, err := aes.NewCipher(seed[:])
	if err != nil {
		panic(err) // a key of 32 bytes is always valid
	}
	var counter [aes.BlockSize]byte
	clear(in.out[:])
	cipher.NewCTR(block, counter[:]).XORKeyStream(in.out[:], in.out[:])
	return &in.out
}

func (s *sum) encode() []byte {
	b := make([]byte, 0, sumSize)
	for _, word := range s {
		b = binary.BigEndian.AppendUint64(b, word)
	}
	return b
}

func decodeSum(b []byte) (s sum) {
	for i := range s {
		s[i] = binary.BigEndian.Uint64(b[8*i:])
	}
	return s
}
