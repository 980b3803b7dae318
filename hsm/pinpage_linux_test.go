package hsm

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
)

// TestPINPage asks the kernel whether the PIN that a store keeps is kept from the
// swap file and from core dumps (proc(5), smaps).
func TestPINPage(t *testing.T) {
	p := &pin{lockedmem.Copy([]byte("1234"))}
	defer p.wipe()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	at, inside, found := uintptr(unsafe.Pointer(unsafe.SliceData(p.bytes()))), false, false
	for line := range strings.Lines(string(text)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			inside = from <= at && at < to
		}
		flags, ok := strings.CutPrefix(line, "VmFlags:")
		if !ok || !inside {
			continue
		}
		found = true
		for _, want := range []string{"lo", "dd"} {
			if !slices.Contains(strings.Fields(flags), want) {
				t.Errorf("the page of the PIN has the flags %s and not %s", flags, want)
			}
		}
	}
	if !found {
		t.Skip("this kernel tells no flags")
	}
}
