package soft

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
)

// FuzzSplit takes apart what is in a file: a header that is accepted is written the same.
func FuzzSplit(f *testing.F) {
	for _, name := range []string{"version1.keys", "version2.keys", "version2fips.keys"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[len(fileMagic) : len(data)-sha256.Size])
	}
	f.Add([]byte("\x02\x00\x02{}"))
	f.Add([]byte("\x02\xff"))
	f.Fuzz(func(t *testing.T, rest []byte) {
		data := append([]byte(fileMagic), rest...)
		if len(rest) == 0 {
			return // check refuses it
		}
		h, begin, records, err := split("keys", data)
		if err != nil {
			return
		}
		if !bytes.Equal(append(bytes.Clone(begin), records...), data) {
			t.Errorf("%q and %q of %q", begin, records, data)
		}
		if again, err := h.encode(); err != nil || rest[0] == 2 && !bytes.Equal(again, begin) {
			t.Errorf("%q is written %q, %v", begin, again, err)
		}
	})
}
