// Package cbc implements the padding of AES-CBC (PKCS #7, RFC 5652 section 6.3) for the
// key stores, all of which pad outside the device, since devices differ in how they treat
// bad padding.
package cbc

import (
	"crypto/aes"
	"crypto/subtle"
	"slices"
)

// Padded returns the padded length of n bytes.
func Padded(n int) int { return n + aes.BlockSize - n%aes.BlockSize }

// Pad copies data to out, which has Padded(len(data)) bytes, and pads it there. The two
// may be the same memory.
func Pad(out, data []byte) {
	for i := copy(out, data); i < len(out); i++ {
		out[i] = byte(len(out) - len(data))
	}
}

// Extend makes dst n bytes longer, and returns it and the new bytes.
func Extend(dst []byte, n int) (all, more []byte) {
	all = slices.Grow(dst, n)[:len(dst)+n]
	return all, all[len(dst):]
}

// Whole reports whether n bytes can be a ciphertext.
func Whole(n int) bool { return n > 0 && n%aes.BlockSize == 0 }

// Unpad removes the padding from data, which has at least one block, in time that does
// not depend on the bytes. If the padding is wrong, ok is false and data is cleared.
// Callers must still verify a MAC first.
func Unpad(data []byte) (plain []byte, ok bool) {
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
		return nil, false
	}
	return data[:len(data)-n], true
}
