package wire

// bitWriter packs codes, most significant bit first.
type bitWriter struct {
	buf []byte
	acc uint64 // the low n bits are not yet written
	n   int
}

func (w *bitWriter) write(code uint32, width int) {
	w.acc = w.acc<<width | uint64(code)
	w.n += width
	for w.n >= 8 {
		w.n -= 8
		w.buf = append(w.buf, byte(w.acc>>w.n))
	}
}

// flush writes the last bits, padded with zeros.
func (w *bitWriter) flush() []byte {
	if w.n > 0 {
		w.buf = append(w.buf, byte(w.acc<<(8-w.n)))
		w.n = 0
	}
	return w.buf
}

// bitReader unpacks codes, most significant bit first.
type bitReader struct {
	src []byte
	acc uint64 // the low n bits are not read yet
	n   int
}

// read returns the next code. It is not ok if fewer bits remain, which are the padding
// of the last byte.
func (r *bitReader) read(width int) (code uint32, ok bool) {
	for r.n < width {
		if len(r.src) == 0 {
			return 0, false
		}
		r.acc = r.acc<<8 | uint64(r.src[0])
		r.src = r.src[1:]
		r.n += 8
	}
	r.n -= width
	return uint32(r.acc >> r.n & (1<<width - 1)), true
}
