package keystoretest

import (
	"bytes"
	"errors"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// testRandom draws random bytes of many sizes, if the store is a
// [keystore.RandomSource] and its device has a generator.
func (s operations) testRandom(t T) {
	source, ok := s.store.(keystore.RandomSource)
	if !ok {
		t.Skip("the store is not a RandomSource")
	}
	seen := map[[16]byte]bool{}
	for _, n := range []int{0, 1, 16, 31, 32, 33, 255, 1024, 1025, 5000} {
		b := make([]byte, n)
		err := source.Random(b)
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if n >= 16 && (bytes.Contains(b, make([]byte, 8)) || bytes.Equal(b[n-8:], make([]byte, 8))) {
			t.Errorf("%d bytes: zeros in %x", n, b)
		}
		for ; len(b) >= 16; b = b[16:] {
			if seen[[16]byte(b)] {
				t.Errorf("%d bytes: %x came before", n, b[:16])
			}
			seen[[16]byte(b)] = true
		}
	}
	closed := s.open(t)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := closed.(keystore.RandomSource).Random(make([]byte, 16)); !errors.Is(err, keystore.ErrClosed) {
		t.Errorf("of a closed store: %v", err)
	}
}
