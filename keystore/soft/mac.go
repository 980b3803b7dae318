package soft

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"sync"
)

type hmacKey struct{ *key }

// Sum returns the HMAC-SHA256 of data.
func (k hmacKey) Sum(data []byte) ([]byte, error) { return k.AppendSum(nil, data) }

// AppendSum appends what Sum returns to dst.
func (k hmacKey) AppendSum(dst, data []byte) ([]byte, error) {
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	return m.hmac(dst, data), nil
}

type cmacKey struct{ *key }

// Sum returns the AES-CMAC of data.
func (k cmacKey) Sum(data []byte) ([]byte, error) { return k.AppendSum(nil, data) }

// AppendSum appends what Sum returns to dst.
func (k cmacKey) AppendSum(dst, data []byte) ([]byte, error) {
	m, err := k.use()
	if err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	return m.cmac.sum(dst, data), nil
}

// hmacPool keeps keyed hashes between sums: resetting one is much cheaper than
// absorbing the key again.
func hmacPool(raw []byte) *sync.Pool {
	return &sync.Pool{New: func() any { return hmac.New(sha256.New, raw) }}
}

func (m *material) hmac(dst, data []byte) []byte {
	h := m.unused.Get().(hash.Hash)
	h.Reset()
	h.Write(data)
	dst = h.Sum(dst)
	m.unused.Put(h)
	return dst
}
