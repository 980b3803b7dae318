package kvtest

import (
	"crypto/hmac"
	"crypto/sha256"
)

// A Secret is a key in memory that authenticates a store.
type Secret string

// Tag returns the HMAC-SHA256 of data (RFC 2104), 32 bytes.
func (s Secret) Tag(data []byte) ([]byte, error) {
	m := hmac.New(sha256.New, []byte(s))
	m.Write(data)
	return m.Sum(nil), nil
}

// Check reports whether tag is that of data.
func (s Secret) Check(data, tag []byte) (bool, error) {
	own, err := s.Tag(data)
	return hmac.Equal(own, tag), err
}

// A Mark says in memory that a store is authenticated.
type Mark struct{ Made bool }

// There reports whether the mark was made.
func (m *Mark) There() (bool, error) { return m.Made, nil }

// Make makes the mark.
func (m *Mark) Make() error { m.Made = true; return nil }
