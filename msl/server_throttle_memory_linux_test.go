//go:build !race

package msl

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
)

// TestProofForgets searches the memory of this process for a password of which a proof was
// made. Garbage is not collected, so nothing is overwritten by chance.
func TestProofForgets(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("set MSL_SOAK: it takes a second")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	const mask = 0x55
	masked := make([]byte, 21)
	rand.Read(masked)
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Skip(err)
	}
	defer memory.Close()
	found := func() (copies int) {
		maps, err := os.Open("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		defer maps.Close()
		for lines := bufio.NewScanner(maps); lines.Scan(); {
			var from, to int64
			if n, _ := fmt.Sscanf(lines.Text(), "%x-%x rw", &from, &to); n == 2 {
				copies += copiesOf(memory, from, to, masked, mask)
			}
		}
		return copies
	}
	guesses := newThrottle(time.Now)
	for _, before := range []string{`{"password":"`, `{"email":"ada@example.com","password":"`, strings.Repeat("e", 200)} {
		authdata := dataOf(before, masked, mask)
		guesses.proof(4711, authdata.Bytes())
		authdata.Close()
	}
	if n := found(); n > 0 {
		t.Errorf("%d copies of a password", n)
	}
	defer dataOf("", masked, mask).Close()
	if found() == 0 {
		t.Error("the search does not find what is there")
	}
}

// dataOf makes a text that ends with a password.
func dataOf(before string, masked []byte, mask byte) *lockedmem.Buffer {
	b := lockedmem.New(len(before) + len(masked))
	copy(b.Bytes(), before)
	for i, c := range masked {
		b.Bytes()[len(before)+i] = c ^ mask
	}
	return b
}

// copiesOf counts a text of which 12 bytes or more are in a part of the memory.
func copiesOf(memory *os.File, from, to int64, masked []byte, mask byte) (copies int) {
	part := lockedmem.New(1 << 16)
	defer part.Close()
	b, nth := part.Bytes(), [12]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	for ; from < to; from += int64(len(b) - len(masked)) {
		n, _ := memory.ReadAt(b[:min(int64(len(b)), to-from)], from) // what nobody ever touched cannot be read
		for rest := b[:n]; ; rest = rest[1:] {
			at := bytes.IndexByte(rest, masked[0]^mask)
			if rest = rest[max(at, 0):]; at < 0 || len(rest) < 12 {
				break
			}
			if !slices.ContainsFunc(nth[:], func(i int) bool { return rest[i] != masked[i]^mask }) {
				copies++
			}
		}
	}
	return copies
}
