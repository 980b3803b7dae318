// Package stretch makes keys and hashes of passphrases and passwords, at a cost that those
// who guess them have to pay, too.
//
// # Which function do I want
//
// [Cost.Key] makes a key. [Recommended] is the cost unless another one is configured, which
// [Cost.Check] judges. A cost that was read from elsewhere must be [Cost.Possible].
package stretch

import (
	"fmt"

	"golang.org/x/crypto/argon2"
)

// A Cost is what it takes to try one passphrase: the parameters of Argon2id (RFC 9106).
type Cost struct {
	Time    uint32 `json:"time"`    // passes over the memory
	Memory  uint32 `json:"memory"`  // KiB
	Threads uint8  `json:"threads"` // that can work at the same time
}

// Recommended returns the second recommended option of RFC 9106 section 4.
func Recommended() Cost { return Cost{Time: 3, Memory: 64 << 10, Threads: 4} }

// Bounds of a Cost. The least is what OWASP's Password Storage Cheat Sheet recommends at
// least: 46 MiB once, or 7 MiB five times, or what is between. The most is a gibibyte of
// memory, and some seconds.
const (
	leastMemory = 7 << 10  // KiB
	leastWork   = 35 << 10 // KiB, in all passes
	mostMemory  = 1 << 20
	mostWork    = 16 << 20
	mostThreads = 64
)

// Check returns an error if passphrases would be guessed too easily at that cost, or if it
// is not possible.
func (c Cost) Check() error {
	if !c.Possible() {
		return fmt.Errorf("%v is not possible: want at most %d KiB, %d KiB in all passes and %d threads, and 8 KiB for each thread", c, mostMemory, mostWork, mostThreads)
	}
	if c.Memory < leastMemory || c.work() < leastWork {
		return fmt.Errorf("%v is too little: want at least %d KiB, and %d KiB in all passes", c, leastMemory, leastWork)
	}
	return nil
}

// Possible reports whether Argon2id has these parameters, and time and memory are bounded.
func (c Cost) Possible() bool {
	return c.Time > 0 && c.Threads > 0 && c.Threads <= mostThreads &&
		c.Memory >= 8*uint32(c.Threads) && c.Memory <= mostMemory && c.work() <= mostWork
}

// work is the memory of all passes, in KiB.
func (c Cost) work() uint64 { return uint64(c.Time) * uint64(c.Memory) }

// Key makes size bytes of a secret. What it works with stays on the heap until it is
// collected. The cost must be [Cost.Possible].
func (c Cost) Key(secret, salt []byte, size uint32) []byte {
	return argon2.IDKey(secret, salt, c.Time, c.Memory, c.Threads, size)
}

// String returns the parameters as errors have them.
func (c Cost) String() string {
	return fmt.Sprintf("Argon2id with time %d, memory %d KiB and %d threads", c.Time, c.Memory, c.Threads)
}
