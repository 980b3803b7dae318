package boltkv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// plainLayout is that of files made before there were checksums. Their records have
// none and are checked by their contents.
func plainLayout() Layout {
	l := layout()
	l.Tables, l.Plain = nil, l.Tables
	l.Check = func(r kv.Reader) error {
		n := 0
		for p, err := range kv.All(r, "first", nil, nil) {
			if err != nil {
				return err
			}
			if !bytes.Equal(p.Value, bytes.Repeat(p.Key, 9)) {
				return damage("%q does not fit", p.Key)
			}
			n++
		}
		if n != samples {
			return damage("%d records", n)
		}
		return nil
	}
	return l
}

const samples = 120 // more than one page

// sample makes a file with every kind of page.
func sample(t testing.TB, l Layout) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sample")
	l.Check = nil
	d := openTest(t, path, l)
	write := func(fn func(tx kv.Tx, key []byte) error) {
		for from := 0; from < samples; from += 40 { // several transactions, so that pages become free
			err := d.Update(t.Context(), func(tx kv.Tx) (err error) {
				for i := range 40 {
					err = errors.Join(err, fn(tx, fmt.Appendf(nil, "key %03d", from+i)))
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	write(func(tx kv.Tx, key []byte) error { return tx.Put("first", key, bytes.Repeat(key, 20)) })
	write(func(tx kv.Tx, key []byte) error { return tx.Put("first", key, bytes.Repeat(key, 9)) })
	d.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// use opens a file, reads all of it, writes, and returns the number of its records.
func use(path string, l Layout) (n int, err error) {
	d, err := Open(path, l, OpenOrCreate)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	return n, d.write(func(tx kv.Tx) error {
		n = 0
		for _, err := range kv.All(tx, "first", nil, nil) {
			if err != nil {
				return err
			}
			n++
		}
		return tx.Put("second", []byte("more"), bytes.Repeat([]byte("x"), 9000))
	})
}

// unmark removes the format record, which older files did not have.
func unmark(t testing.TB, content []byte) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "unmarked")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err == nil {
		err = errors.Join(db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(formatTable)) }), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	content, err = os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestFlippedBytes changes bytes all over a file: either the file is refused, or the
// byte did not matter. Nothing crashes.
func TestFlippedBytes(t *testing.T) {
	for name, c := range map[string]struct {
		layout Layout
		good   []byte
	}{
		"with checksums": {layout(), sample(t, layout())},
		"without":        {plainLayout(), sample(t, plainLayout())},
		"without format": {plainLayout(), unmark(t, sample(t, plainLayout()))},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			refused := 0
			stride := 197
			if testing.Short() {
				stride = 997
			}
			for at := 0; at < len(c.good); at += stride {
				bad := bytes.Clone(c.good)
				bad[at] ^= 1 << (at % 8)
				if err := os.WriteFile(path, bad, 0o600); err != nil {
					t.Fatal(err)
				}
				n, err := use(path, c.layout)
				if err == nil && n != samples {
					t.Errorf("byte %d: %d records", at, n)
				}
				if err != nil {
					refused++
					if !errors.Is(err, kv.ErrDamaged) && !errors.Is(err, kv.ErrFormat) {
						t.Errorf("byte %d: %v", at, err)
					}
				}
			}
			if refused == 0 {
				t.Error("every change was overlooked")
			}
			t.Logf("%d bytes, %d changes refused", len(c.good), refused)
		})
	}
}

func TestFormat(t *testing.T) {
	for name, c := range map[string]struct {
		value string
		want  error
		says  string
	}{
		"newer":    {`{"kind":"test","version":2,"more":true}`, kv.ErrFormat, "use a newer msl-hsm"},
		"older":    {`{"kind":"test","version":0}`, kv.ErrDamaged, "version 0"},
		"other":    {`{"kind":"client","version":1}`, kv.ErrFormat, "name another file"},
		"no JSON":  {`{`, kv.ErrDamaged, "format"},
		"no value": {``, kv.ErrDamaged, "format"},
	} {
		for _, l := range []Layout{layout(), plainLayout()} {
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, sample(t, l), 0o600); err != nil {
				t.Fatal(err)
			}
			d := openTest(t, path, l)
			err := update(d.db, func(tx *bbolt.Tx) error {
				return tx.Bucket([]byte(formatTable)).Put([]byte(formatKey), []byte(c.value))
			})
			if err != nil {
				t.Fatal(err)
			}
			d.Close()
			if _, err = Open(path, l, OpenExisting); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: error %v", name, err)
			}
		}
	}
}

// TestMissingPart removes whole tables: a lost table must not be taken for an empty
// one.
func TestMissingPart(t *testing.T) {
	for _, name := range []string{"first", "second", formatTable} {
		for _, l := range []Layout{layout(), plainLayout()} {
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, sample(t, l), 0o600); err != nil {
				t.Fatal(err)
			}
			d := openTest(t, path, l)
			if err := update(d.db, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(name)) }); err != nil {
				t.Fatal(err)
			}
			d.Close()
			_, err := use(path, l)
			if taken := name == formatTable && l.Plain != nil; (err == nil) != taken || err != nil && !errors.Is(err, kv.ErrDamaged) && !errors.Is(err, kv.ErrFormat) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestMarked opens a file from before there were format records, which adds one.
func TestMarked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, unmark(t, sample(t, plainLayout())), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := use(path, plainLayout()); n != samples || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	other := plainLayout()
	other.Kind = "another"
	if _, err := Open(path, other, OpenExisting); !errors.Is(err, kv.ErrFormat) {
		t.Errorf("it was not marked: %v", err)
	}
	if err := os.WriteFile(path, unmark(t, sample(t, layout())), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, layout(), OpenExisting); !errors.Is(err, kv.ErrFormat) {
		t.Errorf("without a format: %v", err)
	}
}

// A failingDisk cannot read its first page.
type failingDisk struct{ *bytes.Reader }

func (d failingDisk) ReadAt(b []byte, at int64) (int, error) {
	if at < int64(os.Getpagesize()) {
		return 0, syscall.EIO
	}
	return d.Reader.ReadAt(b, at)
}

// TestUnreadableMeta has one of the two meta pages fail to be read: the other one may be that
// of an older state, and is not judged in its place.
func TestUnreadableMeta(t *testing.T) {
	file := sample(t, layout())
	_, err := readPages(failingDisk{bytes.NewReader(file)}, int64(len(file)), os.Getpagesize())
	if !errors.Is(err, syscall.EIO) || errors.Is(err, kv.ErrDamaged) {
		t.Error(err)
	}
}

// FuzzPages overwrites part of a file and truncates it: bbolt reads whatever readPages
// accepts without crashing.
func FuzzPages(f *testing.F) {
	good := sample(f, layout())
	for at := 0; at < len(good); at += 2048 {
		f.Add(uint32(at), []byte{0xff, 0xff}, uint32(0))
	}
	f.Fuzz(func(t *testing.T, at uint32, over []byte, cut uint32) {
		file := bytes.Clone(good)
		copy(file[int(at)%len(file):], over)
		file = file[:len(file)-int(cut)%len(file)]
		_, err := readPages(bytes.NewReader(file), int64(len(file)), os.Getpagesize())
		if err != nil && !errors.Is(err, kv.ErrDamaged) {
			t.Error(err)
		}
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		use(path, layout())
	})
}
