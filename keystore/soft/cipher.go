package soft

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"sync"

	"github.com/msl-hsm/msl-hsm/internal/cbc"
	"github.com/msl-hsm/msl-hsm/keystore"
)

type cipherKey struct{ *key }

// Encrypt pads and encrypts.
func (k cipherKey) Encrypt(iv, plaintext []byte) ([]byte, error) {
	return k.AppendEncrypt(nil, iv, plaintext)
}

// AppendEncrypt appends what Encrypt returns to dst.
func (k cipherKey) AppendEncrypt(dst, iv, plaintext []byte) ([]byte, error) {
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	if len(iv) != aes.BlockSize {
		return nil, errIV(iv)
	}
	dst, out := cbc.Extend(dst, cbc.Padded(len(plaintext)))
	cbc.Pad(out, plaintext)
	m.cbc(&m.modes.encrypt, cipher.NewCBCEncrypter, iv, out, out)
	return dst, nil
}

// Decrypt decrypts and takes the padding off.
func (k cipherKey) Decrypt(iv, ciphertext []byte) ([]byte, error) {
	return k.AppendDecrypt(nil, iv, ciphertext)
}

// AppendDecrypt appends what Decrypt returns to dst.
func (k cipherKey) AppendDecrypt(dst, iv, ciphertext []byte) ([]byte, error) {
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
	dst, out := cbc.Extend(dst, len(ciphertext))
	m.cbc(&m.modes.decrypt, cipher.NewCBCDecrypter, iv, out, ciphertext)
	plain, ok := cbc.Unpad(out)
	if !ok {
		return nil, errCiphertext()
	}
	return dst[:len(dst)-len(out)+len(plain)], nil
}

// cbc encrypts or decrypts whole blocks. A mode holds a copy of the expanded key, which
// is larger than most messages, so it is kept between messages.
func (m *material) cbc(pool *sync.Pool, mode func(cipher.Block, []byte) cipher.BlockMode, iv, out, in []byte) {
	kept, ok := pool.Get().(resettable)
	if ok {
		kept.SetIV(iv)
	} else {
		fresh := mode(m.block, iv)
		if kept, ok = fresh.(resettable); !ok { // it serves once
			fresh.CryptBlocks(out, in)
			return
		}
	}
	kept.CryptBlocks(out, in)
	pool.Put(kept)
}

// modes are those of one key that are not in use.
type modes struct{ encrypt, decrypt sync.Pool }

// A resettable mode can begin again. Those of crypto/cipher for AES are.
type resettable interface {
	cipher.BlockMode
	SetIV([]byte)
}

func errCiphertext() error { return fmt.Errorf("soft: ciphertext: %w", keystore.ErrBadData) }

func errIV(iv []byte) error {
	return fmt.Errorf("soft: initialization vector of %d bytes: %w", len(iv), keystore.ErrBadData)
}
