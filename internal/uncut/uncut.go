// Package uncut lets a write that must not be cut off end before the process does. SoftHSM, for
// example, writes the file of its token anew at each login, and a process that ends in the middle
// of that leaves an empty file in place of all keys.
package uncut

import (
	"sync"
	"time"
)

// writing is locked for reading by whoever writes.
var writing sync.RWMutex

// Begin holds up the end of the process until done is called.
func Begin() (done func()) {
	writing.RLock()
	return writing.RUnlock
}

// Most is how long the end of a process is held up. Such a write takes milliseconds; one that
// takes longer may never end.
const Most = 500 * time.Millisecond

// Wait waits until nothing is written, at most for a time. If whole is true, nothing begins before
// resume is called, so that the process can end.
func Wait(most time.Duration) (resume func(), whole bool) {
	for end := time.Now().Add(most); ; time.Sleep(time.Millisecond) {
		if writing.TryLock() {
			return writing.Unlock, true
		}
		if time.Now().After(end) {
			return func() {}, false
		}
	}
}
