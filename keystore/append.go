package keystore

// A CipherAppender is a [Cipher] that can write to the caller's memory. Its methods are
// those of Cipher, but append to dst, whose spare capacity must not overlap the input.
type CipherAppender interface {
	Cipher
	AppendEncrypt(dst, iv, plaintext []byte) ([]byte, error)
	AppendDecrypt(dst, iv, ciphertext []byte) ([]byte, error)
}

// A MACAppender is a [MAC] that can append the tag to the caller's memory.
type MACAppender interface {
	MAC
	AppendSum(dst, data []byte) ([]byte, error)
}

// AppendEncrypt appends to dst what c.Encrypt returns.
func AppendEncrypt(c Cipher, dst, iv, plaintext []byte) ([]byte, error) {
	if a, ok := c.(CipherAppender); ok {
		return a.AppendEncrypt(dst, iv, plaintext)
	}
	b, err := c.Encrypt(iv, plaintext)
	return append(dst, b...), err
}

// AppendDecrypt appends to dst what c.Decrypt returns.
func AppendDecrypt(c Cipher, dst, iv, ciphertext []byte) ([]byte, error) {
	if a, ok := c.(CipherAppender); ok {
		return a.AppendDecrypt(dst, iv, ciphertext)
	}
	b, err := c.Decrypt(iv, ciphertext)
	return append(dst, b...), err
}

// AppendSum appends to dst what m.Sum returns.
func AppendSum(m MAC, dst, data []byte) ([]byte, error) {
	if a, ok := m.(MACAppender); ok {
		return a.AppendSum(dst, data)
	}
	b, err := m.Sum(data)
	return append(dst, b...), err
}
