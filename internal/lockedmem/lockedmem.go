// Package lockedmem holds secrets that must be in this process, for as short as
// they must: PINs, passwords and authorization values, keys on their way.
//
// A [Buffer] is pages of its own, outside of the heap. They are kept from the swap
// file, from core dumps and from child processes where the system allows it, and
// overwritten when the buffer is closed. No verb of package fmt prints them.
//
// It protects nothing from code in the same process, and nothing of what others
// copy: a string made of the bytes, what package net/rpc or encoding/json encodes,
// the key schedule of a cipher, what [golang.org/x/term] reads from a terminal. Such
// copies are on the heap until the garbage collector reuses it. A system that
// suspends to disk writes locked memory there, too.
package lockedmem

import (
	"fmt"
	"io"
)

// A Buffer is secret bytes. A nil Buffer has none. It is not for several
// goroutines at once, but Len is.
type Buffer struct {
	page   []byte
	mapped bool
	n      int
}

// New makes a buffer of n zero bytes.
func New(n int) *Buffer {
	page, mapped := allocate(n)
	return &Buffer{page: page, mapped: mapped, n: n}
}

// Copy makes a buffer of the bytes of secret, which stays as it is.
func Copy(secret []byte) *Buffer {
	b := New(len(secret))
	copy(b.page, secret)
	return b
}

// Move makes a buffer of the bytes of secret, and overwrites those with zeros.
func Move(secret []byte) *Buffer {
	b := Copy(secret)
	clear(secret)
	return b
}

// Bytes is the buffer itself, never more than its n bytes: what appends to it
// moves to the heap. It must not be used after Close, and is nil then.
func (b *Buffer) Bytes() []byte {
	if b == nil || b.page == nil {
		return nil
	}
	return b.page[:b.n:b.n]
}

// Len is the number of bytes that the buffer was made for, after Close too.
func (b *Buffer) Len() int {
	if b == nil {
		return 0
	}
	return b.n
}

// Close overwrites the bytes and gives the memory back. It may be called more
// than once, and of a nil Buffer.
func (b *Buffer) Close() {
	if b == nil || b.page == nil {
		return
	}
	clear(b.page)
	if b.mapped {
		free(b.page)
	}
	b.page = nil
}

// Format keeps the bytes out of every printed form.
func (b Buffer) Format(f fmt.State, _ rune) { io.WriteString(f, "secret") }
