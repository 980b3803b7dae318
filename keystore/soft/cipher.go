package soft

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

type cipherKey struct{ *key }

// Encrypt pads and encrypts.
func (k cipherKey) Encrypt(iv, plaintext []byte) ([]byte, error) {
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	if len(iv) != aes.BlockSize {
		return nil, errIV(iv)
	}
	out := pad(plaintext)
	cipher.NewCBCEncrypter(m.block, iv).CryptBlocks(out, out)
	return out, nil
}

// Decrypt decrypts and takes the padding off.
func (k cipherKey) Decrypt(iv, ciphertext []byte) ([]byte, error) {
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	if len(iv) != aes.BlockSize {
		return nil, errIV(iv)
	}
	if len(ciphertext) == 0 || len(ciphertext)%aes.BlockSize != 0 {
		return nil, errCiphertext()
	}
	out := make([]byte, len(ciphertext))
	cipher.NewCBCDecrypter(m.block, iv).CryptBlocks(out, ciphertext)
	return unpad(out)
}

// pad copies data and pads it by RFC 5652 section 6.3.
func pad(data []byte) []byte {
	n := aes.BlockSize - len(data)%aes.BlockSize
	out := make([]byte, len(data)+n)
	copy(out, data)
	for i := len(data); i < len(out); i++ {
		out[i] = byte(n)
	}
	return out
}

// unpad looks at the whole last block, whatever the padding is, so that its
// time does not tell where the padding is wrong.
func unpad(data []byte) ([]byte, error) {
	last := data[len(data)-aes.BlockSize:]
	n := int(last[aes.BlockSize-1])
	good := subtle.ConstantTimeLessOrEq(1, n) & subtle.ConstantTimeLessOrEq(n, aes.BlockSize)
	for i, b := range last {
		padding := subtle.ConstantTimeLessOrEq(aes.BlockSize-i, n)
		equal := subtle.ConstantTimeByteEq(b, byte(n))
		good &= subtle.ConstantTimeSelect(padding, equal, 1)
	}
	if good != 1 {
		clear(data)
		return nil, errCiphertext()
	}
	return data[:len(data)-n], nil
}

func errCiphertext() error { return fmt.Errorf("soft: ciphertext: %w", keystore.ErrBadData) }

func errIV(iv []byte) error {
	return fmt.Errorf("soft: initialization vector of %d bytes: %w", len(iv), keystore.ErrBadData)
}
