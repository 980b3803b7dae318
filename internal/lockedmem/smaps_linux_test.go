package lockedmem

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// flags returns what the kernel knows of the mapping that holds b (proc(5),
// smaps).
func flags(t *testing.T, b []byte) []string {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	at, inside := uintptr(unsafe.Pointer(unsafe.SliceData(b))), false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uintptr
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); n == 2 {
			inside = from <= at && at < to
		}
		if rest, ok := strings.CutPrefix(lines.Text(), "VmFlags:"); ok && inside {
			return strings.Fields(rest)
		}
	}
	t.Skip("this kernel tells no flags")
	return nil
}

func TestFlags(t *testing.T) {
	for _, n := range []int{1, 3 * os.Getpagesize()} {
		b := New(n)
		got := flags(t, b.Bytes()[n-1:])
		want := []string{"dd", "wf"} // not dumped, wiped on fork
		var limit unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); os.Geteuid() == 0 || limit.Cur >= 1<<16 {
			want = append(want, "lo") // locked
		}
		for _, flag := range want {
			if !slices.Contains(got, flag) {
				t.Errorf("%d bytes: the pages have the flags %q, and not %s", n, got, flag)
			}
		}
		b.Close()
	}
	if got := flags(t, make([]byte, 64)); slices.Contains(got, "dd") {
		t.Errorf("the heap has the flags %q: this test cannot fail", got)
	}
}
