package boltkv

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// TestBegin reads what is no database no further than its beginning, and all of what is one.
func TestBegin(t *testing.T) {
	unread := errors.New("it was read to its end")
	large := io.MultiReader(strings.NewReader(strings.Repeat("junk", 1<<18)), iotest.ErrReader(unread))
	if _, err := Begin(large); !errors.Is(err, kv.ErrDamaged) {
		t.Errorf("a large file: %v", err)
	}
	if _, err := Begin(iotest.ErrReader(unread)); !errors.Is(err, unread) {
		t.Errorf("a file that cannot be read: %v", err)
	}
	whole := sample(t, layout())
	torn := bytes.Clone(whole)
	clear(torn[:minPageSize])
	for name, content := range map[string][]byte{"whole": whole, "first page damaged": torn, "empty": nil} {
		r, err := Begin(bytes.NewReader(content))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if read, err := io.ReadAll(r); err != nil || !bytes.Equal(read, content) {
			t.Errorf("%s: read %d of %d bytes, %v", name, len(read), len(content), err)
		}
	}
}
