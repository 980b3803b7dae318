package boltkv

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
)

func layout() Layout {
	return Layout{
		Kind: "test", Name: "test file", Tables: kvtest.Tables(), Strict: true,
		Explain: func(path string, err error) error { return fmt.Errorf("boltkv: %s: %w", path, err) },
	}
}

func openTest(t testing.TB, path string, l Layout) *DB {
	t.Helper()
	d, err := Open(path, l, OpenOrCreate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestStore(t *testing.T) {
	plain := layout()
	plain.Tables, plain.Plain = nil, plain.Tables
	for name, l := range map[string]Layout{"with checksums": layout(), "without": plain} {
		t.Run(name, func(t *testing.T) {
			kvtest.Run(t, func(t *testing.T) kv.Store { return openTest(t, filepath.Join(t.TempDir(), "file"), l) })
		})
	}
}

// TestCommit lets functions of one transaction fail: if a function fails after writing,
// the others run again; if it fails before writing, only that function is affected.
func TestCommit(t *testing.T) {
	d := openTest(t, filepath.Join(t.TempDir(), "file"), layout())
	sick := errors.New("sick")
	runs := map[string]int{}
	of := func(name string, writes bool, err error) *write {
		return &write{done: make(chan struct{}), fn: func(tx kv.Tx) error {
			runs[name]++
			if !writes {
				return err
			}
			return errors.Join(tx.Put("first", []byte(name), []byte("x")), err)
		}}
	}
	all := []*write{of("good", true, nil), of("reads", false, sick), of("fails", true, sick), of("late", true, nil), of("idle", false, nil)}
	again := d.commit(all)
	if len(again) != 4 || runs["late"] != 0 {
		t.Fatalf("%d run again, after %v", len(again), runs)
	}
	if again = d.commit(again); again != nil {
		t.Errorf("%d run once more", len(again))
	}
	for i, want := range []error{nil, sick, sick, nil, nil} {
		<-all[i].done
		if !errors.Is(all[i].err, want) || (all[i].err == nil) != (want == nil) {
			t.Errorf("%d: %v, want %v", i, all[i].err, want)
		}
	}
	err := d.View(t.Context(), func(r kv.Reader) error {
		page, err := r.Range("first", nil, nil, 9)
		if len(page) != 2 || string(page[0].Key) != "good" || string(page[1].Key) != "late" {
			t.Errorf("%q", page)
		}
		return err
	})
	if err != nil || runs["good"] != 2 || runs["fails"] != 1 {
		t.Errorf("%v, %v", runs, err)
	}
}

// TestNothingToWrite checks that an empty update does not write to the disk.
func TestNothingToWrite(t *testing.T) {
	d := openTest(t, filepath.Join(t.TempDir(), "file"), layout())
	number := func() (n int) {
		if err := view(d.db, func(t *bbolt.Tx) error { n = t.ID(); return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := number()
	if err := d.Update(t.Context(), func(tx kv.Tx) error { _, err := tx.Get("first", []byte("a")); return err }); err != nil {
		t.Error(err)
	}
	if number() != before {
		t.Error("a transaction that only read was written")
	}
}

// TestRaise wants a file refused by programs that would change its records without what
// authenticates them, and no version lowered.
func TestRaise(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	guarded := layout()
	guarded.Newest = 3
	d := openTest(t, path, guarded)
	for _, version := range []int{2, 3, 3, 2} {
		if err := d.Raise(version); err != nil {
			t.Fatal(err)
		}
	}
	d.Close()
	for _, known := range []int{0, 2} {
		older := layout()
		older.Newest = known
		if _, err := Open(path, older, OpenExisting); !errors.Is(err, kv.ErrFormat) || !strings.Contains(err.Error(), "version 3, and this program knows") {
			t.Errorf("a program that knows version %d: %v, want kv.ErrFormat", known, err)
		}
	}
	openTest(t, path, guarded)
}

// TestOnCommit has what is called before a commit change something, once for all functions,
// and fail.
func TestOnCommit(t *testing.T) {
	d := openTest(t, filepath.Join(t.TempDir(), "file"), layout())
	calls, sick := 0, error(nil)
	d.OnCommit(func(tx kv.Tx) error {
		calls++
		return errors.Join(sick, tx.Put("first", []byte("last"), []byte("x")))
	})
	writing := func() (all []*write) {
		for i := range 3 {
			key := []byte{byte(i + 1)}
			all = append(all, &write{done: make(chan struct{}), fn: func(tx kv.Tx) error { return tx.Put("first", key, key) }})
		}
		return all
	}
	all := writing()
	d.commit(all)
	if calls != 1 || all[0].err != nil || all[2].err != nil {
		t.Errorf("%d calls, %v, %v", calls, all[0].err, all[2].err)
	}
	if d.commit([]*write{{done: make(chan struct{}), fn: func(kv.Tx) error { return nil }}}); calls != 1 {
		t.Error("it is called where nothing changes")
	}
	sick = errors.New("sick")
	all = writing()
	if d.commit(all); !errors.Is(all[0].err, sick) || !errors.Is(all[2].err, sick) {
		t.Errorf("it failed, and that did not: %v, %v", all[0].err, all[2].err)
	}
}
