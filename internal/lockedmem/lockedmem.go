// Package lockedmem holds secrets that must be in this process, for as short a time as
// possible: PINs, passwords and authorization values, and keys in transit.
//
// A [Buffer] has its own pages, outside the heap. They are kept out of swap, core dumps
// and child processes where the system allows it, and are overwritten when the buffer is
// closed. No verb of package fmt prints them, whatever the buffer is a part of.
//
// It does not protect the bytes from code in the same process, nor any copies made by
// other packages: a string made of the bytes, data that passes through package net/http
// or encoding/json, the key schedule of a cipher, the line that [golang.org/x/term] reads
// from a terminal. Such copies stay on the heap until the garbage collector reuses the
// memory. A system that suspends to disk also writes locked memory there.
package lockedmem

import (
	"fmt"
	"io"
	"unsafe"
)

// A Buffer is secret bytes. A nil Buffer is empty. Except for Len, a Buffer is not safe
// for concurrent use.
type Buffer struct {
	// Not a slice: package fmt cannot call Format of what is in a field that another package
	// keeps to itself, and prints the elements.
	start  *byte
	room   int
	mapped bool
	n      int
}

// New makes a buffer of n zero bytes.
func New(n int) *Buffer {
	page, mapped := allocate(n)
	return &Buffer{start: unsafe.SliceData(page), room: len(page), mapped: mapped, n: n}
}

// page is all of the memory, or nil after Close.
func (b *Buffer) page() []byte { return unsafe.Slice(b.start, b.room) }

// Copy makes a buffer with a copy of secret, which is left unchanged.
func Copy(secret []byte) *Buffer {
	b := New(len(secret))
	to := b.Bytes()
	//lint:ignore S1001 copy moves many bytes at once, through registers that a signal may save
	for i, c := range secret {
		to[i] = c
	}
	return b
}

// Move makes a buffer with the bytes of secret, and overwrites secret with zeros.
func Move(secret []byte) *Buffer {
	b := Copy(secret)
	clear(secret)
	ClearRegisters()
	return b
}

// Bytes returns the buffer's own n bytes, without spare capacity: appending to them
// moves them to the heap. They must not be used after Close, when Bytes returns nil.
func (b *Buffer) Bytes() []byte {
	if b == nil || b.start == nil {
		return nil
	}
	return b.page()[:b.n:b.n]
}

// Len returns the size that the buffer was made with, even after Close.
func (b *Buffer) Len() int {
	if b == nil {
		return 0
	}
	return b.n
}

// Close overwrites the bytes and frees the memory. It may be called more than once, and
// on a nil Buffer.
func (b *Buffer) Close() {
	if b == nil || b.start == nil {
		return
	}
	clear(b.page())
	ClearRegisters()
	if b.mapped {
		free(b.page())
	}
	b.start, b.room = nil, 0
}

// Format keeps the bytes out of every printed form.
func (b Buffer) Format(f fmt.State, _ rune) { io.WriteString(f, "secret") }
