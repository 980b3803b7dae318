package hsm

import (
	"testing"

	"github.com/miekg/pkcs11"
)

// TestLearnBesideOthers has long data refused for a lack of memory, while shorter data of others
// is accepted: that says nothing about the long data.
func TestLearnBesideOthers(t *testing.T) {
	memory := &Error{Function: "C_Sign", Code: pkcs11.CKR_DEVICE_MEMORY}
	for _, c := range []struct{ beside, want int }{{2 << 10, leastPart}, {40 << 10, 40 << 10}} {
		var e entry
		for range 2 {
			_ = e.learn(40<<10, memory)
			_ = e.learn(c.beside, nil)
		}
		if got := e.part(40 << 10); got != c.want {
			t.Errorf("%d bytes beside: parts of %d", c.beside, got)
		}
	}
}
