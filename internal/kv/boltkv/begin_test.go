package boltkv

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// TestBegin reads only the beginning of a file that is not a database, and all of one that is.
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

// TestKilledCopy copies a file where a process that was killed left its copy two hours ago.
func TestKilledCopy(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var left string
	err := layout().OnCopy(strings.NewReader("x"), func(path string) error {
		left = path[:len(path)-len("B2C3")] + "AAAA" // another name of the same form
		return os.WriteFile(left, []byte("x"), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(left, before, before); err != nil {
		t.Fatal(err)
	}
	if err := layout().OnCopy(strings.NewReader("x"), func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if all, err := os.ReadDir(os.TempDir()); err != nil || len(all) != 0 {
		t.Errorf("%v are left, %v", all, err)
	}
}
