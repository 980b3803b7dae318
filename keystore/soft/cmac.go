package soft

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"

	"github.com/msl-hsm/msl-hsm/internal/cbc"
)

// A cmac is AES-CMAC (RFC 4493) under one key.
type cmac struct {
	block  cipher.Block
	k1, k2 [aes.BlockSize]byte
}

func newCMAC(block cipher.Block) *cmac {
	c := &cmac{block: block}
	var l [aes.BlockSize]byte
	block.Encrypt(l[:], l[:])
	c.k1 = double(l)
	c.k2 = double(c.k1)
	return c
}

// double multiplies by x in GF(2^128): the subkey step of RFC 4493 section 2.3.
func double(in [aes.BlockSize]byte) (out [aes.BlockSize]byte) {
	for i := range aes.BlockSize - 1 {
		out[i] = in[i]<<1 | in[i+1]>>7
	}
	out[aes.BlockSize-1] = in[aes.BlockSize-1]<<1 ^ 0x87*(in[0]>>7)
	return out
}

// sum appends the tag of data to dst.
func (c *cmac) sum(dst, data []byte) []byte {
	dst, tag := cbc.Extend(dst, aes.BlockSize)
	clear(tag)
	for len(data) > aes.BlockSize {
		subtle.XORBytes(tag, tag, data[:aes.BlockSize])
		c.block.Encrypt(tag, tag)
		data = data[aes.BlockSize:]
	}
	subtle.XORBytes(tag, tag, data)
	if len(data) == aes.BlockSize {
		subtle.XORBytes(tag, tag, c.k1[:])
	} else {
		tag[len(data)] ^= 0x80
		subtle.XORBytes(tag, tag, c.k2[:])
	}
	c.block.Encrypt(tag, tag)
	return dst
}
