package boltkv

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
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

// TestForeignLink makes a file where another user planted a link: nothing is made elsewhere.
func TestForeignLink(t *testing.T) {
	dir := t.TempDir()
	elsewhere, link := filepath.Join(dir, "elsewhere"), filepath.Join(dir, "link")
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(link, 65534, 65534); err != nil {
		t.Skip(err)
	}
	_, err := Open(link, layout(), OpenOrCreate)
	if _, made := os.Lstat(elsewhere); err == nil || !strings.Contains(err.Error(), "another user") || made == nil {
		t.Errorf("%v, and the file elsewhere: %v", err, made)
	}
}
