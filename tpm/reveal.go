package tpm

import (
	"bytes"
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

type revealKey struct{ *key }

// maxRevealed is the largest wrapped key, in bytes, that Reveal unwraps: each eight bytes
// take six commands.
const maxRevealed = 8192

// Reveal undoes AES Key Wrap (RFC 3394) into the memory of this process. A TPM has no
// command for it, so each step is a command that decrypts one block: 24 for a key of 32
// bytes.
func (k revealKey) Reveal(wrapped []byte) ([]byte, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	n := len(wrapped)/8 - 1
	if len(wrapped)%8 != 0 || n < 2 || len(wrapped) > maxRevealed {
		return nil, errWrapped()
	}
	var a, raw []byte
	err := k.use(func(l loadedKey) (err error) {
		a, raw = bytes.Clone(wrapped[:8]), bytes.Clone(wrapped[8:])
		return l.unwrap(a, raw)
	})
	if err != nil {
		clear(raw)
		return nil, err
	}
	if subtle.ConstantTimeCompare(a, bytes.Repeat([]byte{0xa6}, 8)) != 1 {
		clear(raw)
		return nil, errWrapped()
	}
	return raw, nil
}

// unwrap is RFC 3394 section 2.2.2, in place.
func (l loadedKey) unwrap(a, r []byte) error {
	n := len(r) / 8
	iv, block := make([]byte, aes.BlockSize), make([]byte, aes.BlockSize)
	defer clear(block)
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			binary.BigEndian.PutUint64(block, binary.BigEndian.Uint64(a)^uint64(n*j+i))
			copy(block[8:], r[8*i-8:8*i])
			// With one block and a zero IV, CBC mode is the plain block cipher.
			out, _, err := l.cbc(iv, block, true)
			if err != nil {
				return err
			}
			copy(a, out[:8])
			copy(r[8*i-8:], out[8:])
		}
	}
	return nil
}

func errWrapped() error { return fmt.Errorf("tpm: wrapped data: %w", keystore.ErrBadData) }
