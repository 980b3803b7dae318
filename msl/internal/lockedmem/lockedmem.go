// Package lockedmem holds secrets that must pass through this process, for as
// short as they must.
//
// A [Buffer] is memory of its own, outside of the heap, kept from the swap file
// and from core dumps where the system allows it, and overwritten when it is
// closed. It protects nothing from code in the same process, and nothing of what
// the standard library copies from it.
package lockedmem

// A Buffer is secret bytes. It is not for several goroutines at once.
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

// Bytes is the buffer itself, never more than its n bytes: what appends to it
// moves to the heap. It must not be used after Close, and is nil then.
func (b *Buffer) Bytes() []byte {
	if b == nil || b.page == nil {
		return nil
	}
	return b.page[:b.n:b.n]
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
