package throwaway

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// TestNoTemporary has the error name the setting, which the path does not.
func TestNoTemporary(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "nowhere"))
	_, err := Dir("", "x-")
	_, errFile := File("", "x-")
	for _, err := range []error{err, errFile} {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "TMPDIR") {
			t.Error(err)
		}
	}
}

func TestSweep(t *testing.T) {
	in := t.TempDir()
	t.Chdir(in)
	dir, err := Dir(".", "dir-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := File(in, "file-")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := File(in, "kept-")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	defer kept.Close()
	if err := os.Rename(kept.Name(), "final"); err != nil {
		t.Fatal(err)
	}
	t.Chdir("/")
	Sweep()()
	if got := entries(t, in); len(got) != 1 || got[0] != "final" {
		t.Errorf("%q are left", got)
	}
}

func TestRemove(t *testing.T) {
	in := t.TempDir()
	f, err := File(in, "x-")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := Remove(f.Name()); err != nil || len(entries(t, in)) != 0 {
		t.Errorf("%v, %q", err, entries(t, in))
	}
	if err := os.WriteFile(f.Name(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	Sweep()()
	if len(entries(t, in)) != 1 {
		t.Error("a file of the same name that is another's is gone")
	}
}

// TestAbandoned removes what processes left that were killed, and nothing else: not what is
// young or still written to, and not files of the user with similar names.
func TestAbandoned(t *testing.T) {
	in, long := t.TempDir(), time.Now().Add(-2*abandoned)
	random := func() string { return rand.Text()[:randomText] }
	make := func(name string, old bool) string {
		t.Helper()
		path := filepath.Join(in, name)
		err := os.WriteFile(path, nil, 0o600)
		if err == nil && old {
			err = os.Chtimes(path, long, long)
		}
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	makeDir := func(old bool) string {
		t.Helper()
		name := "x.part-" + random()
		if err := os.Mkdir(filepath.Join(in, name), 0o700); err != nil {
			t.Fatal(err)
		}
		make(filepath.Join(name, "within"), old)
		if err := os.Chtimes(filepath.Join(in, name), long, long); err != nil {
			t.Fatal(err)
		}
		return name
	}
	make("x.part-"+random(), true)
	makeDir(true)
	want := []string{makeDir(false)}
	for _, name := range []string{"x.part-aa", "x.part-1", "x.part-" + random()[1:], "x.part-" + random() + "A", "x.part-" + strings.ToLower(random()), "y.part-" + random()} {
		want = append(want, make(name, true))
	}
	want = append(want, make("x.part-"+random(), false), make("x", true))
	f, err := File(in, "x.part-")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	want = append(want, filepath.Base(f.Name()))
	slices.Sort(want)
	if got := entries(t, in); !slices.Equal(got, want) {
		t.Errorf("%q are left, want %q", got, want)
	}
	if info, err := os.Stat(f.Name()); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestAbandonedByFormer removes what earlier versions left among temporary files.
func TestAbandonedByFormer(t *testing.T) {
	in, long := t.TempDir(), time.Now().Add(-2*abandoned)
	t.Setenv("TMPDIR", in)
	for _, name := range []string{"x-123456789", "y-123456789", "x-1a"} {
		path := filepath.Join(in, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, long, long)); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := Dir("", "x-")
	if err != nil {
		t.Fatal(err)
	}
	if err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, in); !slices.Equal(got, []string{"x-1a", "y-123456789"}) {
		t.Errorf("%q are left", got)
	}
}
