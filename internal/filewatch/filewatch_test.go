package filewatch

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// A watched directory, and what was taken of it.
type watched struct {
	*testing.T
	dir  string
	w    Watch
	took [][]string
	gave error
	n    int // of files that were written
}

func watch(t *testing.T, names ...string) *watched {
	d := &watched{T: t, dir: t.TempDir()}
	d.w.Files = func() (all []string) {
		for _, name := range names {
			all = append(all, filepath.Join(d.dir, name))
		}
		return append(all, "")
	}
	d.w.Take = func(changed []string, again bool) error {
		var own []string
		for _, path := range changed {
			own = append(own, filepath.Base(path))
		}
		if again {
			own = append(own, "again")
		}
		d.took = append(d.took, own)
		return d.gave
	}
	return d
}

// write writes a file with another time than all before.
func (d *watched) write(name, text string) {
	d.n++
	path := filepath.Join(d.dir, name)
	at := time.Unix(1_000_000_000+int64(d.n), 0)
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, at, at)); err != nil {
		d.Fatal(err)
	}
}

func (d *watched) check(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// looks looks some times, and wants files to be taken as often as there are names.
func (d *watched) looks(times int, want ...string) {
	d.Helper()
	d.took = nil
	for range times {
		d.w.Step()
	}
	var got []string
	for _, one := range d.took {
		got = append(got, one...)
	}
	if !slices.Equal(got, want) {
		d.Errorf("took %q, want %q", got, want)
	}
}

func TestChanges(t *testing.T) {
	d := watch(t, "a", "b", "later")
	d.write("a", "one")
	d.write("b", "one")
	d.looks(5)
	d.write("a", "two")
	d.looks(1)
	d.looks(3, "a")
	d.write("later", "one")
	d.write("b", "two")
	d.looks(4, "b", "later")
	d.check(os.Remove(filepath.Join(d.dir, "b")))
	d.looks(4, "b")
}

// TestWriting looks while a file grows: it is taken when it does not any more.
func TestWriting(t *testing.T) {
	d := watch(t, "a")
	d.write("a", "")
	d.looks(2)
	for range 10 {
		d.write("a", "half")
		d.looks(1)
	}
	d.looks(2, "a")
}

// TestSameSizeAndTime replaces a file by one of the same size and time, as cp -p does.
func TestSameSizeAndTime(t *testing.T) {
	d := watch(t, "a")
	d.write("a", "one")
	d.looks(2)
	at := time.Unix(1_000_000_000+int64(d.n), 0)
	other := filepath.Join(d.dir, "other")
	d.check(os.WriteFile(other, []byte("two"), 0o600))
	d.check(os.Chtimes(other, at, at))
	d.check(os.Rename(other, filepath.Join(d.dir, "a")))
	d.looks(3, "a")
}

// TestKubernetes replaces files as Kubernetes does those of a secret: each is a link into
// ..data, which is a link to a directory, and that link is replaced.
func TestKubernetes(t *testing.T) {
	d := watch(t, "tls.crt", "ca.crt")
	for _, version := range []string{"..1", "..2"} {
		d.check(os.Mkdir(filepath.Join(d.dir, version), 0o755))
		d.write(version+"/tls.crt", version)
		d.write(version+"/ca.crt", version)
	}
	data := filepath.Join(d.dir, "..data")
	d.check(os.Symlink("..1", data))
	d.check(os.Symlink("..data/tls.crt", filepath.Join(d.dir, "tls.crt")))
	d.check(os.Symlink("..data/ca.crt", filepath.Join(d.dir, "ca.crt")))
	d.looks(3)
	d.check(os.Symlink("..2", data+"_tmp"))
	d.check(os.Rename(data+"_tmp", data))
	d.check(os.RemoveAll(filepath.Join(d.dir, "..1")))
	d.looks(3, "ca.crt", "tls.crt")
}

// TestUseless has files that cannot be used: they are tried once, and now and then, until
// they change again or are as before.
func TestUseless(t *testing.T) {
	d := watch(t, "a")
	d.write("a", "one")
	d.looks(2)
	d.gave = errors.New("no certificate")
	d.write("a", "half of it")
	d.looks(patience+1, "a")
	d.looks(1, "a", "again")
	d.write("a", "another half")
	d.looks(3, "a")
	d.gave = nil
	d.looks(patience, "a", "again")
	d.looks(3 * patience)
}

// TestTook says that what was found is in use already.
func TestTook(t *testing.T) {
	d := watch(t, "a")
	d.write("a", "one")
	d.looks(2)
	d.write("a", "two")
	seen := At(d.w.Files()...)
	d.w.Took(seen)
	d.looks(4)
	seen = At(d.w.Files()...)
	d.write("a", "while it was read")
	d.w.Took(seen)
	d.looks(3, "a")
}

// TestOtherFiles has what was taken name another file than before.
func TestOtherFiles(t *testing.T) {
	d := watch(t, "a", "b")
	d.write("a", "one")
	d.write("b", "one")
	d.write("c", "one")
	seen := At(d.w.Files()...)
	d.w.Files = func() []string { return []string{filepath.Join(d.dir, "a"), filepath.Join(d.dir, "c")} }
	d.w.Took(seen.Of(d.w.Files()...))
	d.looks(4)
	d.write("b", "two")
	d.looks(4)
	d.write("c", "two")
	d.looks(4, "c")
}

func TestStart(t *testing.T) {
	d := watch(t, "a")
	taken := make(chan struct{})
	d.w.Take = func([]string, bool) error { close(taken); return nil }
	d.w.Every = time.Millisecond
	d.w.Took(At(d.w.Files()...))
	end := d.w.Start()
	d.write("a", "one")
	<-taken
	end()
}
