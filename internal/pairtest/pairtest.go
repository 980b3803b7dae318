// Package pairtest makes RSA pairs in tests cheap. [rsa.GenerateKey] spends nine tenths
// of its time on numbers that turn out not to be prime.
package pairtest

import (
	"crypto/fips140"
	"crypto/rand"
	"crypto/sha3"
	_ "embed"
	"encoding/binary"
	"io"
	"math/big"
	"strconv"
	"strings"
	"sync"
)

// primeSize is the size of a prime of a 2048-bit pair, in bytes.
const primeSize = 128

// lucky are the numbers of candidates that are prime. Their count is prime, so that each
// stride visits all of them before it repeats one.
//
//go:embed primes.txt
var lucky string

// candidate returns a 1024-bit number such as [rsa.GenerateKey] tries.
func candidate(n uint32) []byte {
	b := sha3.SumSHAKE256(binary.BigEndian.AppendUint32(nil, n), primeSize)
	b[0] |= 0b1100_0000
	b[primeSize-1] |= 1
	return b
}

// A reader of random bytes returns a prime whenever a prime's number of bytes is
// requested.
type reader struct {
	random       io.Reader
	numbers      []string
	mu           sync.Mutex
	next, stride int
}

// Install replaces [rand.Reader] so that 2048-bit pairs take a few milliseconds, in a
// process whose tests do not examine how pairs are made, and that is built with
//
//	//go:debug cryptocustomrand=1
//
// A pair repeats once in some hundred thousand. In the FIPS 140-3 mode nothing changes.
func Install() error {
	if fips140.Enabled() {
		return nil
	}
	r := &reader{random: rand.Reader, numbers: strings.Fields(lucky)}
	count := int64(len(r.numbers))
	begin, err := rand.Int(r.random, big.NewInt(count))
	if err != nil {
		return err
	}
	stride, err := rand.Int(r.random, big.NewInt(count-1))
	if err != nil {
		return err
	}
	r.next, r.stride = int(begin.Int64()), int(stride.Int64())+1
	rand.Reader = r
	return nil
}

// Read implements [io.Reader].
func (r *reader) Read(b []byte) (int, error) {
	if len(b) != primeSize {
		return r.random.Read(b)
	}
	r.mu.Lock()
	number := r.numbers[r.next]
	r.next = (r.next + r.stride) % len(r.numbers)
	r.mu.Unlock()
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0, err
	}
	return copy(b, candidate(uint32(n))), nil
}
