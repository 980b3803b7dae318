package hsm

import (
	"bytes"
	"sync"
)

// A tap keeps what crosses between this process and a module, both ways, so
// that a test can look for what must not. No store outside of the tests has one.
// PINs are left out.
type tap struct {
	mu  sync.Mutex
	all [][]byte
}

// note is called with every buffer of a call, before and after it as the buffer
// is read or written.
func (r *tap) note(buffers ...[]byte) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range buffers {
		r.all = append(r.all, bytes.Clone(b))
	}
}
