//go:debug cryptocustomrand=1

package pairtest

import (
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestPrimes checks that each number in the list is that of a prime, and there once.
func TestPrimes(t *testing.T) {
	numbers := strings.Fields(lucky)
	if n := big.NewInt(int64(len(numbers))); !n.ProbablyPrime(20) {
		t.Errorf("%v numbers", n)
	}
	for i, number := range numbers {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || slices.Contains(numbers[:i], number) {
			t.Fatalf("%q: %v", number, err)
		}
		if !new(big.Int).SetBytes(candidate(uint32(n))).ProbablyPrime(0) {
			t.Errorf("%s is not that of a prime", number)
		}
	}
}

// TestInstall checks that pairs have primes of the list, and differ.
func TestInstall(t *testing.T) {
	before := rand.Reader
	t.Cleanup(func() { rand.Reader = before })
	if err := Install(); err != nil {
		t.Fatal(err)
	}
	var made []*rsa.PrivateKey
	for range 20 {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(made, func(other *rsa.PrivateKey) bool { return other.Equal(key) }) {
			t.Error("a pair was made twice")
		}
		made = append(made, key)
	}
	want := map[string]bool{}
	for number := range strings.FieldsSeq(lucky) {
		n, _ := strconv.ParseUint(number, 10, 32)
		want[string(candidate(uint32(n)))] = true
	}
	for _, p := range made[0].Primes {
		if !want[string(p.Bytes())] {
			t.Error("a prime is not in the list")
		}
	}
}

func BenchmarkGenerate(b *testing.B) {
	for _, c := range []struct {
		name  string
		begin func() error
	}{{"searched", func() error { return nil }}, {"found", Install}} {
		b.Run(c.name, func(b *testing.B) {
			before := rand.Reader
			b.Cleanup(func() { rand.Reader = before })
			if err := c.begin(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := rsa.GenerateKey(rand.Reader, 2048); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
