// Package keywrap is AES Key Wrap (RFC 3394) over a block cipher that may be in a device: for
// key stores whose devices have the cipher only.
package keywrap

import (
	"crypto/subtle"
	"encoding/binary"
)

const (
	integrity = 0xa6a6a6a6a6a6a6a6 // the initial value, RFC 3394 section 2.2.3.1
	chunk     = 8
)

// A Block encrypts or decrypts one block of 16 bytes from src to dst, which are different
// memory.
type Block func(dst, src []byte) error

// Fits reports whether n bytes can be wrapped: two or more chunks of eight.
func Fits(n int) bool { return n >= 2*chunk && n%chunk == 0 }

// Wrap wraps data of a length that fits (RFC 3394 section 2.2.1). The result is eight bytes
// longer. The error is that of encrypt.
func Wrap(data []byte, encrypt Block) ([]byte, error) {
	out := make([]byte, chunk+len(data))
	copy(out[chunk:], data)
	n := len(data) / chunk
	var in, b [2 * chunk]byte
	defer clear(in[:])
	binary.BigEndian.PutUint64(b[:], integrity)
	for step := 1; step <= 6*n; step++ {
		one := out[((step-1)%n+1)*chunk:][:chunk]
		copy(in[:], b[:chunk])
		copy(in[chunk:], one)
		if err := encrypt(b[:], in[:]); err != nil {
			clear(out)
			return nil, err
		}
		copy(one, b[chunk:])
		count(&b, step)
	}
	copy(out, b[:chunk])
	return out, nil
}

// Unwrap undoes Wrap (RFC 3394 section 2.2.2). It reports whether wrapped has a possible
// length and comes from Wrap with the same key; if not, nothing is returned. The error is
// that of decrypt.
func Unwrap(wrapped []byte, decrypt Block) (data []byte, ok bool, err error) {
	if !Fits(len(wrapped) - chunk) {
		return nil, false, nil
	}
	out := make([]byte, len(wrapped)-chunk)
	copy(out, wrapped[chunk:])
	n := len(out) / chunk
	var in, b [2 * chunk]byte
	defer clear(in[:])
	defer clear(b[:])
	copy(b[:], wrapped[:chunk])
	for step := 6 * n; step >= 1; step-- {
		one := out[(step-1)%n*chunk:][:chunk]
		count(&b, step)
		copy(in[:], b[:chunk])
		copy(in[chunk:], one)
		if err := decrypt(b[:], in[:]); err != nil {
			clear(out)
			return nil, false, err
		}
		copy(one, b[chunk:])
	}
	if subtle.ConstantTimeCompare(b[:chunk], binary.BigEndian.AppendUint64(nil, integrity)) != 1 {
		clear(out)
		return nil, false, nil
	}
	return out, true, nil
}

// count mixes the number of the step into the integrity register.
func count(b *[2 * chunk]byte, step int) {
	register := binary.BigEndian.Uint64(b[:])
	binary.BigEndian.PutUint64(b[:], register^uint64(step))
}
