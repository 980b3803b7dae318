package boltkv

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
)

// TestDerived opens a file from before there was a derived table: the table reads as empty
// while the file is checked, and takes records afterwards, which the next opening has. It
// is not one that other layouts know.
func TestDerived(t *testing.T) {
	path, table := filepath.Join(t.TempDir(), "file"), kvtest.Tables()[0]
	former := layout()
	former.Tables = kvtest.Tables()[1:]
	openTest(t, path, former).Close()
	l, found := former, 0
	l.Derived = []string{table}
	l.Check = func(r kv.Reader) error {
		page, err := r.Range(table, nil, nil, 10)
		value, errGet := r.Get(table, []byte("k"))
		if found = len(page); (value != nil) != (found > 0) {
			t.Errorf("%d records, value %q", found, value)
		}
		return errors.Join(err, errGet)
	}
	for want := range 2 {
		d := openTest(t, path, l)
		if found != want {
			t.Errorf("%d records, want %d", found, want)
		}
		if err := d.Update(t.Context(), func(tx kv.Tx) error { return tx.Put(table, []byte("k"), nil) }); err != nil {
			t.Fatal(err)
		}
		d.Close()
	}
	if _, err := Open(path, former, OpenOrCreate); !errors.Is(err, kv.ErrDamaged) {
		t.Errorf("without it: %v", err)
	}
}
