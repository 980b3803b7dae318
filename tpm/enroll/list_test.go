package enroll

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// listed makes a file with n records: one a minute, every third pending, the rest enrolled.
func listed(t testing.TB, n int) (f *File, path string, start time.Time) {
	t.Helper()
	path, start = filepath.Join(t.TempDir(), "enrollments.db"), time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for from := 0; from < n; from += 500 {
		err := f.Update(context.Background(), func(tx Tx) (err error) {
			for i := from; i < min(from+500, n); i++ {
				r := Record{ID: ID{byte(i * 7), byte(i >> 8), byte(i)}, Name: fmt.Sprintf("camera-%05d", i), State: Enrolled,
					Updated: start.Add(time.Duration(i) * time.Minute), Evidence: &Evidence{Proof: make([]byte, 3000)}}
				if i%3 == 0 {
					r.State = Pending
				}
				err = errors.Join(err, tx.Put(r))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return f, path, start
}

// pages follows a query to its end.
func pages(t testing.TB, f Records, q Query) (names []string) {
	t.Helper()
	for {
		var p Page
		err := f.View(context.Background(), func(tx Tx) (err error) {
			p, err = tx.Page(q)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Records {
			names = append(names, r.Name)
		}
		if q.After = p.Next; p.Next == "" {
			return names
		}
	}
}

// TestPagesLeft lists the devices that left the policy, by time and by name.
func TestPagesLeft(t *testing.T) {
	f, _, _ := listed(t, 60)
	err := f.Update(t.Context(), func(tx Tx) error {
		for i := range 60 {
			r, err := tx.Get(ID{byte(i * 7), 0, byte(i)})
			if err != nil {
				return err
			}
			if r.Attested = (&Attested{Time: r.Updated}); i%10 < 2 {
				r.Attested.Why = "PCR 4"
			}
			if err := tx.Put(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, tt := range map[string]struct {
		q    Query
		want []string
	}{ // every third waits
		"by time":  {Query{Left: true, Limit: 7}, []string{"camera-00001", "camera-00010", "camera-00011", "camera-00020", "camera-00031", "camera-00040", "camera-00041", "camera-00050"}},
		"by name":  {Query{Left: true, Limit: 7, Name: "camera-0001"}, []string{"camera-00010", "camera-00011"}},
		"enrolled": {Query{Left: true, State: Enrolled, Name: "camera-0004"}, []string{"camera-00040", "camera-00041"}},
		"pending":  {Query{Left: true, State: Pending}, nil},
	} {
		if got := pages(t, f, tt.q); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v", what, got)
		}
	}
}

// TestPages lists records by all that can be asked for, a few at a time.
func TestPages(t *testing.T) {
	f, _, start := listed(t, 60)
	all := func(keep func(i int) bool) (names []string) {
		for i := range 60 {
			if keep(i) {
				names = append(names, fmt.Sprintf("camera-%05d", i))
			}
		}
		return names
	}
	for what, c := range map[string]struct {
		q    Query
		keep func(i int) bool
	}{
		"all":                    {Query{}, func(int) bool { return true }},
		"a state":                {Query{State: Pending}, func(i int) bool { return i%3 == 0 }},
		"a state without any":    {Query{State: Revoked}, func(int) bool { return false }},
		"a time":                 {Query{Since: start.Add(50 * time.Minute)}, func(i int) bool { return i >= 50 }},
		"a state and a time":     {Query{State: Enrolled, Since: start.Add(50 * time.Minute)}, func(i int) bool { return i >= 50 && i%3 != 0 }},
		"a name":                 {Query{Name: "camera-0002"}, func(i int) bool { return i/10 == 2 }},
		"a whole name":           {Query{Name: "camera-00021"}, func(i int) bool { return i == 21 }},
		"a name without any":     {Query{Name: "box"}, func(int) bool { return false }},
		"a name, state and time": {Query{Name: "camera-0002", State: Pending, Since: start.Add(22 * time.Minute)}, func(i int) bool { return i == 24 || i == 27 }},
	} {
		for _, limit := range []int{0, 1, 7, 20, 60, MaxPage} {
			c.q.Limit = limit
			if got, want := pages(t, f, c.q), all(c.keep); !slices.Equal(got, want) {
				t.Errorf("%s, %d at a time: %q", what, limit, got)
			}
		}
	}
	for _, bad := range []Query{{After: "x"}, {After: "00"}, {Limit: -1}, {Limit: MaxPage + 1}} {
		err := f.View(t.Context(), func(tx Tx) error { _, err := tx.Page(bad); return err })
		checkError(t, err, ErrQuery)
	}
}

// TestPageEvidence leaves the evidence out where it was not asked for.
func TestPageEvidence(t *testing.T) {
	f, _, _ := listed(t, 3)
	a, err := NewAuthority(Config{Records: f})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []Query{{}, {Evidence: true}, {Name: "camera"}, {Name: "camera", Evidence: true}} {
		p, err := a.Page(t.Context(), q)
		if err != nil || len(p.Records) != 3 || (p.Records[0].Evidence != nil) != q.Evidence {
			t.Errorf("%+v: %d records, %v", q, len(p.Records), err)
		}
	}
}

// TestPageOfChanges changes a record between pages: it comes again, and none is left out.
func TestPageOfChanges(t *testing.T) {
	f, _, start := listed(t, 10)
	var seen []string
	q := Query{Limit: 4}
	for more := true; more; more = q.After != "" {
		err := f.Update(t.Context(), func(tx Tx) error {
			p, err := tx.Page(q)
			if err != nil {
				return err
			}
			for _, r := range p.Records {
				seen = append(seen, r.Name)
			}
			if q.After == "" { // the first has to wait after all
				r := p.Records[0]
				r.State, r.Updated = Revoked, start.Add(time.Hour)
				err = tx.Put(r)
			}
			q.After = p.Next
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 11 || seen[10] != seen[0] {
		t.Errorf("%q", seen)
	}
}

// TestPageOfSkew has a server whose clock is behind change a record that a list comes to yet.
func TestPageOfSkew(t *testing.T) {
	f, _, start := listed(t, 10)
	soon := Record{ID: ID{35, 0, 5}, Name: "soon", State: Enrolled, Updated: start.Add(4*time.Minute + time.Second)}
	a, err := NewAuthority(Config{Records: f})
	if err = errors.Join(err, f.Update(t.Context(), func(tx Tx) error { return tx.Put(soon) })); err != nil {
		t.Fatal(err)
	}
	a.now = func() time.Time { return start.Add(4*time.Minute - time.Second) }
	first, err := a.Page(t.Context(), Query{Limit: 5})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.RevokeDevice(t.Context(), soon.ID, ""); err != nil {
		t.Fatal(err)
	}
	rest, err := a.Page(t.Context(), Query{After: first.Next})
	if err != nil || len(rest.Records) != 5 {
		t.Errorf("%d of 5 are left, %v", len(rest.Records), err)
	}
	wrong := Record{Updated: start.Add(time.Hour)}
	if wrong.touch(start); !wrong.Updated.Equal(start) {
		t.Errorf("a clock that was wrong counts: %v", wrong.Updated)
	}
}

// TestFind looks for devices by all that people type.
func TestFind(t *testing.T) {
	f, _, _ := listed(t, 0)
	a, err := NewAuthority(Config{Records: f})
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"box", "camera", strings.Repeat("0", 6)} {
		if err := a.Approve(t.Context(), ID{0xab, 0xcd, 0xef, byte(i) << 4}, name, ""); err != nil {
			t.Fatal(err)
		}
	}
	whole := ID{0xab, 0xcd, 0xef, 0x10}.String()
	for what, want := range map[string]struct {
		found int
		first string
	}{
		"box": {1, "box"}, "000000": {1, "000000"}, whole: {1, "camera"}, strings.ToUpper(whole): {1, "camera"},
		"abcdef": {2, "box"}, "abcdef1": {1, "camera"}, "ABCDEF1": {1, "camera"}, "abcdef10": {1, "camera"},
		"abcde": {0, ""}, "abcdef3": {0, ""}, "abcdefg": {0, ""}, "": {0, ""}, "ffffff": {0, ""}, ID{9}.String(): {0, ""},
	} {
		found, err := a.Find(t.Context(), what)
		if (want.found == 0) != errors.Is(err, ErrUnknown) || err == nil && (len(found) != want.found || found[0].Name != want.first) {
			t.Errorf("%q: %d, %v", what, len(found), err)
		}
	}
}

// TestIndexMadeAnew damages the index in every way, and takes it away: it is made anew, and
// nothing else changes.
func TestIndexMadeAnew(t *testing.T) {
	f, path, _ := listed(t, 30)
	want := pages(t, f, Query{})
	for what, change := range map[string]func(kv.Tx) error{
		"one too many":   func(tx kv.Tx) error { return tx.Put(tableStates, []byte("x"), nil) },
		"one missing":    func(tx kv.Tx) error { return tx.Delete(tableStates, firstKey(t, tx, tableStates)) },
		"another number": func(tx kv.Tx) error { return tx.Put(tableCounts, stateKey(Enrolled), make([]byte, 8)) },
		"no number":      func(tx kv.Tx) error { return tx.Put(tableCounts, stateKey(Enrolled), []byte("x")) },
		"a foreign one":  func(tx kv.Tx) error { return tx.Put(tableCounts, []byte("x"), make([]byte, 9)) },
		"interrupted":    func(tx kv.Tx) error { return tx.Delete(tableCounts, stateKey(Pending)) },
	} {
		if err := errors.Join(f.db.Update(t.Context(), change), f.Close()); err != nil {
			t.Fatal(err)
		}
		var err error
		if f, err = OpenFile(path); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if states, err := f.Check(); err != nil || states[Enrolled]+states[Pending] != len(want) {
			t.Errorf("%s: %v, %v", what, states, err)
		}
		if got := pages(t, f, Query{}); !slices.Equal(got, want) {
			t.Errorf("%s: %d records", what, len(got))
		}
	}
	if err := errors.Join(f.Close(), os.WriteFile(path, formerFile(t), 0o600)); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := pages(t, f, Query{}); len(got) != 7 {
		t.Errorf("of an earlier version: %q", got)
	}
}

// TestIndexSteps makes the index of more records than one step takes.
func TestIndexSteps(t *testing.T) {
	f, _, _ := listed(t, indexStep+3)
	if err := f.reindex(); err != nil {
		t.Fatal(err)
	}
	if states, err := f.Check(); err != nil || states[Enrolled]+states[Pending] != indexStep+3 {
		t.Errorf("%v, %v", states, err)
	}
}

// BenchmarkPage is the first page of a list, of few devices and of many.
func BenchmarkPage(b *testing.B) {
	for _, n := range []int{200, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f, _, _ := listed(b, n)
			a, err := NewAuthority(Config{Records: f})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if p, err := a.Page(b.Context(), Query{State: Pending, Limit: 50}); err != nil || len(p.Records) != 50 {
					b.Fatal(len(p.Records), err)
				}
			}
		})
	}
}
