package hsm

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/internal/cbc"
	"github.com/msl-hsm/msl-hsm/keystore"
)

type cipherKey struct{ *object }

// Encrypt pads in this process (PKCS #7, RFC 5652 section 6.3) and encrypts in
// the token: what modules make of a bad padding differs, and so the length of
// every answer is known before it comes.
func (k cipherKey) Encrypt(iv, plaintext []byte) ([]byte, error) {
	return k.AppendEncrypt(nil, iv, plaintext)
}

// AppendEncrypt appends what Encrypt returns to dst.
func (k cipherKey) AppendEncrypt(dst, iv, plaintext []byte) ([]byte, error) {
	if len(iv) != aes.BlockSize {
		return nil, fmt.Errorf("hsm: initialization vector of %d bytes, want %d", len(iv), aes.BlockSize)
	}
	dst, out := cbc.Extend(dst, cbc.Padded(len(plaintext)))
	err := k.run(func(session, handle uint) error {
		cbc.Pad(out, plaintext) // again in every attempt: one that fails may have written over it
		n, err := k.store.encrypt(session, handle, pkcs11.CKM_AES_CBC, iv, out, out)
		return exactly("C_Encrypt", n, len(out), err)
	})
	if err != nil {
		clear(out) // the plaintext may be left
		return nil, k.store.recovery.ours(err)
	}
	return dst, nil
}

// Decrypt decrypts in the token and takes off the padding here.
func (k cipherKey) Decrypt(iv, ciphertext []byte) ([]byte, error) {
	return k.AppendDecrypt(nil, iv, ciphertext)
}

// AppendDecrypt appends what Decrypt returns to dst.
func (k cipherKey) AppendDecrypt(dst, iv, ciphertext []byte) ([]byte, error) {
	if len(iv) != aes.BlockSize || !cbc.Whole(len(ciphertext)) {
		return nil, errPadding
	}
	dst, out := cbc.Extend(dst, len(ciphertext))
	if err := k.decrypt(out, iv, ciphertext); err != nil {
		return nil, err
	}
	plain, ok := cbc.Unpad(out)
	if !ok {
		var err error
		if plain, err = k.doubt(out, iv, ciphertext); err != nil {
			return nil, err
		}
	}
	return dst[:len(dst)-len(out)+len(plain)], nil
}

// decrypt decrypts whole blocks. They always decrypt: what fails is never the data.
func (k cipherKey) decrypt(out, iv, ciphertext []byte) error {
	err := k.run(func(session, handle uint) error {
		before := blot(out)
		n, err := k.store.decrypt(session, handle, pkcs11.CKM_AES_CBC, iv, ciphertext, out)
		if err = exactly("C_Decrypt", n, len(out), err); err == nil && [aes.BlockSize]byte(out) == before {
			err = unwritten("C_Decrypt")
		}
		return err
	})
	return k.store.recovery.ours(err)
}

// doubt decrypts again what came out with a bad padding: the peer is told that its data is
// bad only if the token says so repeatedly, and works otherwise.
func (k cipherKey) doubt(out, iv, ciphertext []byte) ([]byte, error) {
	other := make([]byte, len(out))
	defer clear(other)
	again := func(into []byte) error {
		err := k.decrypt(into, iv, ciphertext)
		if err == nil && !bytes.Equal(out, other) {
			err = errMismatch
		}
		return err
	}
	err := k.decrypt(out, iv, ciphertext)
	if err == nil {
		err = again(other)
	}
	plain, ok := cbc.Unpad(out)
	switch {
	case err == nil && ok:
		return plain, nil
	case err == nil && k.store.doubts.Allow():
		if err = k.store.recovery.check(); err == nil {
			err = again(out) // it may have recovered during the check
		}
	}
	clear(out)
	return nil, cmp.Or(k.store.recovery.explain(err), errPadding)
}

// blot clears out and makes its first block random, which shows whether a module wrote over
// it. A peer may have encrypted anything else, zeros too.
func blot(out []byte) (first [aes.BlockSize]byte) {
	binary.NativeEndian.PutUint64(first[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(first[8:], rand.Uint64())
	clear(out[copy(out, first[:]):])
	return first
}

var errPadding = fmt.Errorf("hsm: decrypt: %w", keystore.ErrBadData)
