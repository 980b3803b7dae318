package enroll

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// walkOfChanges has operators approve, rename, reject, add and remove devices at another
// authority between the pages of a list.
func walkOfChanges(p *pair, q Query) {
	now := time.Now()
	clock := func() time.Time { now = now.Add(time.Millisecond); return now }
	p.a.Authority.now, p.b.Authority.now = clock, clock
	var list []Approval
	for i := range byte(40) {
		list = append(list, Approval{ID: ID{i}, Name: fmt.Sprintf("box-%02d", i)})
	}
	if err := errors.Join(p.a.ApproveAll(p.Context(), list)...); err != nil {
		p.Fatal(err)
	}
	var found []ID
	pages := byte(0)
	q.Limit = 6
	next, err := Walk(q, 0, func(q Query) (Page, error) {
		page, err := p.b.Page(p.Context(), q)
		if pages++; pages < 10 {
			p.change(pages)
		}
		return page, err
	}, func(some []Record) error {
		for _, r := range some {
			found = append(found, r.ID)
		}
		return nil
	})
	if err != nil || next != "" || pages < 6 {
		p.Fatalf("%d pages, %q, %v", pages, next, err)
	}
	for i := range byte(40) {
		times := len(slices.DeleteFunc(slices.Clone(found), func(id ID) bool { return id != ID{i} }))
		away := i == 19 || q.State == Approved && i > 20 && i < 30
		if times > 1 || times == 0 && !away {
			p.Errorf("device %d comes %d times", i, times)
		}
	}
}

// change changes a few devices of walkOfChanges, of which one is removed.
func (p *pair) change(n byte) {
	p.Helper()
	ctx := p.Context()
	checkError(p, errors.Join(
		p.a.Approve(ctx, ID{n}, "", "again"),
		p.a.Approve(ctx, ID{40 - n}, fmt.Sprintf("box-00-%d", n), "to the front"),
		p.a.Approve(ctx, ID{2 * n}, fmt.Sprintf("box-99-%d", n), "to the end"),
		p.a.Reject(ctx, ID{20 + n}, ""),
		p.a.Approve(ctx, ID{100 + n}, fmt.Sprintf("box-50-%d", n), "new"),
	), nil)
	if n == 3 {
		checkError(p, p.a.Remove(ctx, ID{19}), nil)
	}
}

// TestWalkLimited stops after as many records as it shall read, whatever the pages have.
func TestWalkLimited(t *testing.T) {
	f, _, _ := listed(t, 60)
	a, err := NewAuthority(Config{Records: f})
	if err != nil {
		t.Fatal(err)
	}
	page := func(q Query) (Page, error) { return a.Page(t.Context(), q) }
	for _, q := range []Query{{Limit: 7}, {State: Pending, Limit: 7}, {Name: "camera", Limit: 7}, {Name: "camera", State: Pending, Limit: 7}, {}} {
		for _, most := range []int{1, 7, 10, 20, 60} {
			n, rounds := 0, 0
			for q := q; rounds == 0 || q.After != ""; rounds++ {
				some := 0
				q.After, err = Walk(q, most, page, func(r []Record) error { some += len(r); return nil })
				if n += some; err != nil || some > most || some < most && q.After != "" {
					t.Fatalf("%+v: %d of %d, %v", q, some, most, err)
				}
			}
			if want := 60; n != want && (q.State == "" || n != 20) {
				t.Errorf("%+v, %d at a time: %d of %d", q, most, n, want)
			}
		}
	}
	failed := errors.New("failed")
	if _, err := Walk(Query{}, 0, page, func([]Record) error { return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
}
