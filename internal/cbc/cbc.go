// Package cbc has the padding of AES-CBC (PKCS #7, RFC 5652 section 6.3), for the key
// stores, which all pad outside of the device: what devices make of a bad padding
// differs.
package cbc

import (
	"crypto/aes"
	"crypto/subtle"
)

// Padded returns how many bytes n bytes become.
func Padded(n int) int { return n + aes.BlockSize - n%aes.BlockSize }

// Pad copies data to out, which has Padded(len(data)) bytes, and pads it there. The
// two may be the same memory.
func Pad(out, data []byte) {
	for i := copy(out, data); i < len(out); i++ {
		out[i] = byte(len(out) - len(data))
	}
}

// Whole reports whether n bytes can be a ciphertext.
func Whole(n int) bool { return n > 0 && n%aes.BlockSize == 0 }

// Unpad takes the padding off data, which is one block at least, in a time that does
// not depend on the bytes. A padding that is wrong is not ok, and clears data. Callers
// verify a MAC first all the same.
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
