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
	m.encrypt(iv, out, out)
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
	m.decrypt(iv, out, ciphertext)
	plain, ok := cbc.Unpad(out)
	if !ok {
		return nil, errCiphertext()
	}
	return dst[:len(dst)-len(out)+len(plain)], nil
}

// modes are a key's CBC modes, each with a copy of the expanded key, which is larger than
// most messages. They are kept between messages, but not in an idle session.
type modes struct {
	block            cipher.Block
	encrypt, decrypt cipher.BlockMode // nil until they are used
}

// modePool keeps the modes of a key that are not in use.
func modePool(raw []byte) (*sync.Pool, error) {
	if _, err := aes.NewCipher(raw); err != nil {
		return nil, err
	}
	return &sync.Pool{New: func() any {
		block, _ := aes.NewCipher(raw) // as above
		return &modes{block: block}
	}}, nil
}

func (m *material) encrypt(iv, out, in []byte) {
	kept := m.unused.Get().(*modes)
	kept.encrypt = again(kept.encrypt, cipher.NewCBCEncrypter, kept.block, iv)
	kept.encrypt.CryptBlocks(out, in)
	m.unused.Put(kept)
}

func (m *material) decrypt(iv, out, in []byte) {
	kept := m.unused.Get().(*modes)
	kept.decrypt = again(kept.decrypt, cipher.NewCBCDecrypter, kept.block, iv)
	kept.decrypt.CryptBlocks(out, in)
	m.unused.Put(kept)
}

// again begins with iv, where that is possible with the mode of before.
func again(kept cipher.BlockMode, mode func(cipher.Block, []byte) cipher.BlockMode, block cipher.Block, iv []byte) cipher.BlockMode {
	if resettable, ok := kept.(interface{ SetIV([]byte) }); ok { // as those of crypto/cipher are
		resettable.SetIV(iv)
		return kept
	}
	return mode(block, iv)
}

func errCiphertext() error { return fmt.Errorf("soft: ciphertext: %w", keystore.ErrBadData) }

func errIV(iv []byte) error {
	return fmt.Errorf("soft: initialization vector of %d bytes: %w", len(iv), keystore.ErrBadData)
}
