package hsm

import (
	"crypto/aes"
	"crypto/subtle"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

type cipherKey struct{ *object }

// Encrypt pads in this process (PKCS #7, RFC 5652 section 6.3) and encrypts in
// the token: what modules make of a bad padding differs, and so the length of
// every answer is known before it comes.
func (k cipherKey) Encrypt(iv, plaintext []byte) ([]byte, error) {
	if len(iv) != aes.BlockSize {
		return nil, fmt.Errorf("hsm: initialization vector of %d bytes, want %d", len(iv), aes.BlockSize)
	}
	padding := aes.BlockSize - len(plaintext)%aes.BlockSize
	out := make([]byte, len(plaintext)+padding)
	err := k.run(func(session, handle uint) error {
		// Again in every attempt: one that fails may have written over it.
		for i := copy(out, plaintext); i < len(out); i++ {
			out[i] = byte(padding)
		}
		n, err := k.store.encrypt(session, handle, pkcs11.CKM_AES_CBC, iv, out, out)
		return exactly("C_Encrypt", n, len(out), err)
	})
	if err != nil {
		return nil, k.store.ours(err)
	}
	return out, nil
}

// Decrypt decrypts in the token and takes off the padding here.
func (k cipherKey) Decrypt(iv, ciphertext []byte) ([]byte, error) {
	if len(iv) != aes.BlockSize || len(ciphertext) == 0 || len(ciphertext)%aes.BlockSize != 0 {
		return nil, errPadding
	}
	out := make([]byte, len(ciphertext))
	err := k.run(func(session, handle uint) error {
		n, err := k.store.decrypt(session, handle, pkcs11.CKM_AES_CBC, iv, ciphertext, out)
		return exactly("C_Decrypt", n, len(out), err)
	})
	if err != nil {
		// Whole blocks always decrypt: it is never the data.
		return nil, k.store.ours(err)
	}
	n, err := unpad(out)
	if err != nil {
		clear(out)
		return nil, err
	}
	return out[:n], nil
}

var errPadding = fmt.Errorf("hsm: decrypt: %w", keystore.ErrBadData)

// unpad returns the length without padding, in a time that does not depend on
// the bytes. Callers verify a MAC first all the same.
func unpad(b []byte) (int, error) {
	last := b[len(b)-1]
	good := subtle.ConstantTimeLessOrEq(1, int(last)) & subtle.ConstantTimeLessOrEq(int(last), aes.BlockSize)
	for i := 1; i <= aes.BlockSize; i++ {
		within := subtle.ConstantTimeLessOrEq(i, int(last))
		same := subtle.ConstantTimeByteEq(b[len(b)-i], last)
		good &= subtle.ConstantTimeSelect(within, same, 1)
	}
	if good != 1 {
		return 0, errPadding
	}
	return len(b) - int(last), nil
}
