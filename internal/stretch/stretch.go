// Package stretch makes keys and hashes from passphrases and passwords, at a cost that
// anyone guessing them must also pay.
//
// # Which function do I want
//
// [Cost.Key] makes a key. [Recommended] is the cost unless another one is configured, which
// [Cost.Check] judges. A cost that was read from elsewhere must be [Cost.Possible].
package stretch

import (
	"crypto/fips140"
	"crypto/pbkdf2"
	"crypto/sha256"
	"fmt"

	"golang.org/x/crypto/argon2"
)

// A Cost is the cost of trying one passphrase: the parameters of Argon2id (RFC 9106) or,
// where FIPS 140-3 permits only that, of PBKDF2 with HMAC-SHA256 (RFC 8018).
type Cost struct {
	Time    uint32 `json:"time,omitempty"`    // passes over the memory
	Memory  uint32 `json:"memory,omitempty"`  // KiB
	Threads uint8  `json:"threads,omitempty"` // that can work at the same time

	Iterations uint32 `json:"iterations,omitempty"` // of PBKDF2; the other fields are zero
}

// Recommended returns the second recommended option of RFC 9106 section 4, or in Go's
// FIPS mode the recommendation of OWASP's Password Storage Cheat Sheet for PBKDF2.
func Recommended() Cost {
	if fips140.Enabled() {
		return Cost{Iterations: leastIterations}
	}
	return Cost{Time: 3, Memory: 64 << 10, Threads: 4}
}

// Limits of a Cost. The maximum is a gibibyte of memory, and some seconds.
const (
	keptMemory = 7 << 10  // KiB
	keptWork   = 35 << 10 // KiB, in all passes
	mostMemory = 1 << 20
	mostWork   = 16 << 20

	mostThreads = 64

	leastIterations = 600_000
	mostIterations  = 100_000_000
)

// Approved reports whether FIPS 140-3 permits the function of that cost.
func (c Cost) Approved() bool { return c.Iterations > 0 }

// leastMemory is the minimum of OWASP's Password Storage Cheat Sheet for a number of passes,
// in KiB.
func leastMemory(passes uint32) uint32 {
	least := [...]uint32{46 << 10, 19 << 10, 12 << 10, 9 << 10, 7 << 10}
	return least[min(passes, 5)-1]
}

// Check returns an error if passphrases would be too easy to guess at that cost, or if it
// is not possible.
func (c Cost) Check() error {
	if c.Possible() && !c.Approved() && c.Memory < leastMemory(c.Time) {
		return fmt.Errorf("%v is too little: want at least %d KiB for that time", c, leastMemory(c.Time))
	}
	return c.CheckKept()
}

// CheckKept is Check for the cost of something that exists: earlier versions accepted any number
// of passes that use 35 MiB in all.
func (c Cost) CheckKept() error {
	switch {
	case !c.Possible() && c.Approved():
		return fmt.Errorf("%v is not possible: want at most %d iterations", c, mostIterations)
	case !c.Possible():
		return fmt.Errorf("%v is not possible: want at most %d KiB, %d KiB in all passes and %d threads, and 8 KiB for each thread", c, mostMemory, mostWork, mostThreads)
	case c.Approved() && c.Iterations < leastIterations:
		return fmt.Errorf("%v is too little: want at least %d iterations", c, leastIterations)
	case !c.Approved() && (c.Memory < keptMemory || c.work() < keptWork):
		return fmt.Errorf("%v is too little: want at least %d KiB, and %d KiB in all passes", c, keptMemory, keptWork)
	}
	return nil
}

// Possible reports whether one of the functions accepts these parameters, and time and
// memory are bounded.
func (c Cost) Possible() bool {
	if c.Approved() {
		return c == Cost{Iterations: c.Iterations} && c.Iterations <= mostIterations
	}
	return c.Time > 0 && c.Threads > 0 && c.Threads <= mostThreads &&
		c.Memory >= 8*uint32(c.Threads) && c.Memory <= mostMemory && c.work() <= mostWork
}

// work is the memory of all passes, in KiB.
func (c Cost) work() uint64 { return uint64(c.Time) * uint64(c.Memory) }

// Key derives 32 bytes from a secret and a salt of at least 16 bytes. Its working memory,
// for PBKDF2 a copy of the secret, stays on the heap until it is collected. The cost must
// be [Cost.Possible].
func (c Cost) Key(secret, salt []byte) []byte {
	const size = 32
	if !c.Approved() {
		return argon2.IDKey(secret, salt, c.Time, c.Memory, c.Threads, size)
	}
	key, err := pbkdf2.Key(sha256.New, string(secret), salt, int(c.Iterations), size)
	if err != nil {
		panic(err) // these sizes and this hash are permitted in every mode
	}
	return key
}

// Function returns the name of the function.
func (c Cost) Function() string {
	if c.Approved() {
		return "PBKDF2-HMAC-SHA256"
	}
	return "Argon2id"
}

// String returns the parameters in the form used in errors.
func (c Cost) String() string {
	if c.Approved() {
		return fmt.Sprintf("%s with %d iterations", c.Function(), c.Iterations)
	}
	return fmt.Sprintf("%s with time %d, memory %d KiB and %d threads", c.Function(), c.Time, c.Memory, c.Threads)
}
