package tpm

import (
	"crypto/aes"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/keywrap"
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
	if !keywrap.Fits(len(wrapped)-8) || len(wrapped) > maxRevealed {
		return nil, errWrapped()
	}
	var raw []byte
	ok := false
	err := k.use(func(l loadedKey) (err error) {
		raw, ok, err = keywrap.Unwrap(wrapped, l.decryptBlock)
		return err
	})
	if err == nil && !ok {
		err = errWrapped()
	}
	return raw, err
}

// decryptBlock decrypts one block: with a zero IV, CBC mode is the plain block cipher.
func (l loadedKey) decryptBlock(dst, src []byte) error {
	out, _, err := l.cbc(make([]byte, aes.BlockSize), src, true)
	copy(dst, out)
	return err
}

func errWrapped() error { return fmt.Errorf("tpm: wrapped data: %w", keystore.ErrBadData) }
