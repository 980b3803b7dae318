package hsm

import "testing"

// TestPlace wants sessions with handles of any kind to have places of their own, or nearly: numbers
// in a row, with the slot in the low bits, and pointers.
func TestPlace(t *testing.T) {
	for _, step := range []uint{1, 0x10, 0x40, 0x60, 0x100, 0x10000, 0x1000000} {
		places := map[uint8]bool{}
		for i := range uint(16) {
			places[functions{}.number(0x7f000010+i*step)] = true
		}
		if len(places) < 12 {
			t.Errorf("16 handles at a distance of %#x have %d places", step, len(places))
		}
	}
}
