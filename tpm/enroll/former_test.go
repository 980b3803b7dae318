package enroll

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// formerFile unpacks the enrollments that an earlier version wrote.
func formerFile(t *testing.T) []byte {
	t.Helper()
	packed, err := os.ReadFile("testdata/enrollments.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestFormerFile opens enrollments that an earlier version wrote, reads every record,
// and continues with them.
func TestFormerFile(t *testing.T) {
	ctx := context.Background()
	o := newOffice(t, Policy{}, nil)
	if err := errors.Join(o.file.Close(), os.WriteFile(o.path, formerFile(t), 0o600)); err != nil {
		t.Fatal(err)
	}
	o.open()
	list := compareFormer(t, o)
	for i := range 2 {
		for _, r := range list {
			if byName, err := nameOfFile(o.file, r.Name); r.Name != "" && (err != nil || byName != r.ID) {
				t.Errorf("%s: %s, %v", r.Name, byName, err)
			}
		}
		states, err := o.file.Check()
		if want := (map[State]int{Approved: 1, Enrolled: 1, Pending: 1, Rejected: 1, Revoked: 3}); err != nil || i == 0 && cmp.Diff(want, states) != "" {
			t.Errorf("%v, %v", states, err)
		}
		if err := errors.Join(o.RevokeDevice(ctx, ID{3}, "more"), o.Approve(ctx, ID{4}, "box-4", "")); err != nil {
			t.Fatal(err)
		}
		o.restart()
	}
	if r := o.record(ID{4}); r.Name != "box-4" || r.State != Approved {
		t.Errorf("%+v", r)
	}
}

func compareFormer(t *testing.T, o *office) []Record {
	t.Helper()
	list, errList := o.List(context.Background())
	got, errGot := json.MarshalIndent(list, "", " ")
	want, err := os.ReadFile("testdata/enrollments.json")
	if err := errors.Join(errList, errGot, err); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)+"\n"); d != "" {
		t.Error(d)
	}
	return list
}

func nameOfFile(f *File, name string) (id ID, err error) {
	err = f.View(context.Background(), func(tx Tx) error {
		id, err = tx.ByName(name)
		return err
	})
	return id, err
}

// TestFormerCopy takes such a file as a backup.
func TestFormerCopy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "enrollments")
	if _, err := Restore(formerFile(t), path); err != nil {
		t.Fatal(err)
	}
	if all := devicesIn(t, path); len(all) != 7 {
		t.Errorf("%q", all)
	}
}
