package wire

import (
	"math/bits"
	"math/rand/v2"
)

// MSL's LZW starts with a table of the 256 one-byte strings and never forgets an entry:
// there are no clear and end codes and no limit on the width of a code. Codes are
// packed with the most significant bit first and the last byte is padded with zero
// bits. compress/lzw of the standard library supports only other formats.

const lzwBase = 256 // table entries at the start

// lzwWidth returns the number of bits of the k-th code, counted from 0: wide enough for
// the last entry the encoder has added by then, which is one less than the decoder's
// next free code.
func lzwWidth(k int) int { return bits.Len(uint(lzwBase - 1 + k)) }

// compressLZW always takes the longest match, as all encoders must to agree on
// the output.
func compressLZW(data []byte) []byte {
	if len(data) == 0 {
		return []byte{}
	}
	w := bitWriter{buf: make([]byte, 0, len(data)/2+16)}
	t := newLZWTable(len(data))
	match, written := uint32(data[0]), 0
	for _, b := range data[1:] {
		next, ok := t.findOrAdd(match, b, uint32(lzwBase+written))
		if ok {
			match = next
			continue
		}
		w.write(match, lzwWidth(written))
		written++
		match = uint32(b)
	}
	w.write(match, lzwWidth(written))
	return w.flush()
}

// lzwTable maps an entry and a byte to the longer entry, with open addressing. The
// multiplier is random, because an attacker may choose data that makes every lookup
// collide. It does not affect the output.
type lzwTable struct {
	keys       []uint64 // entry<<8|byte, plus one so that zero is a free slot
	codes      []uint32
	used       int
	shift      int // leaves as many bits as are needed to number the slots
	multiplier uint64
}

func newLZWTable(sizeHint int) *lzwTable {
	t := &lzwTable{multiplier: rand.Uint64() | 1}
	t.alloc(bits.Len(uint(min(sizeHint, 1<<12))))
	return t
}

func (t *lzwTable) alloc(width int) {
	t.keys = make([]uint64, 1<<width)
	t.codes = make([]uint32, 1<<width)
	t.shift = 64 - width
}

// slot returns where key is, or where it belongs.
func (t *lzwTable) slot(key uint64) int {
	mask := len(t.keys) - 1
	i := int(key * t.multiplier >> t.shift)
	for t.keys[i] != 0 && t.keys[i] != key {
		i = (i + 1) & mask
	}
	return i
}

// findOrAdd returns the code of the entry match+b. If there is none, it is
// added under the code given.
func (t *lzwTable) findOrAdd(match uint32, b byte, code uint32) (found uint32, ok bool) {
	key := uint64(match)<<8 + uint64(b) + 1
	i := t.slot(key)
	if t.keys[i] != 0 {
		return t.codes[i], true
	}
	t.keys[i], t.codes[i] = key, code
	t.used++
	if 2*t.used > len(t.keys) {
		t.double()
	}
	return 0, false
}

func (t *lzwTable) double() {
	keys, codes := t.keys, t.codes
	t.alloc(64 - t.shift + 1)
	for j, key := range keys {
		if key != 0 {
			i := t.slot(key)
			t.keys[i], t.codes[i] = key, codes[j]
		}
	}
}

// decompressLZW stores no strings. The entry added after a code is the string of that
// code and the byte that followed, so it can be found in the output itself: starts
// contains its position, and it ends one byte after the position of the entry added next.
// The table therefore takes one word per code, whatever the length of the entries.
func decompressLZW(data []byte, out *output) error {
	r := bitReader{src: data}
	codes := min(len(data), out.limit) + 1 // at most: each has at least 8 bits, and yields at least one byte
	out.table = 4 * codes
	if err := out.grow(min(out.limit, 4*len(data))); err != nil {
		return err
	}
	starts := make([]uint32, 0, codes)
	for {
		code, ok := r.read(lzwWidth(len(starts)))
		if !ok {
			return nil
		}
		starts = append(starts, uint32(len(out.buf)))
		from, size, ok := lzwEntry(int(code), starts)
		if !ok {
			return ErrCompression
		}
		if err := out.room(size); err != nil {
			return err
		}
		out.buf = appendEntry(out.buf, byte(code), from, size)
	}
}

// lzwEntry returns the position and size of an entry in the output. The last element of
// starts is the length of the output. A one-byte entry has no position.
func lzwEntry(code int, starts []uint32) (from, size int, ok bool) {
	if code < lzwBase {
		return 0, 1, true
	}
	i := code - lzwBase
	if i+1 >= len(starts) {
		return 0, 0, false
	}
	return int(starts[i]), int(starts[i+1]-starts[i]) + 1, true
}

// appendEntry appends an entry. The newest entry ends with its own first byte, which is
// only appended here.
func appendEntry(out []byte, b byte, from, size int) []byte {
	if size == 1 {
		return append(out, b)
	}
	end := from + size
	if end > len(out) {
		out = append(out, out[from:end-1]...)
		return append(out, out[from])
	}
	return append(out, out[from:end]...)
}
