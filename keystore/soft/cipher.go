package soft

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/cbc"
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
	out := make([]byte, cbc.Padded(len(plaintext)))
	cbc.Pad(out, plaintext)
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
	if !cbc.Whole(len(ciphertext)) {
		return nil, errCiphertext()
	}
	out := make([]byte, len(ciphertext))
	cipher.NewCBCDecrypter(m.block, iv).CryptBlocks(out, ciphertext)
	plain, ok := cbc.Unpad(out)
	if !ok {
		return nil, errCiphertext()
	}
	return plain, nil
}

func errCiphertext() error { return fmt.Errorf("soft: ciphertext: %w", keystore.ErrBadData) }

func errIV(iv []byte) error {
	return fmt.Errorf("soft: initialization vector of %d bytes: %w", len(iv), keystore.ErrBadData)
}
