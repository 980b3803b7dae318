//go:build !noetcd

package etcdkv

import (
	"errors"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
)

// countMarks returns how many marks of a process there are.
func countMarks(t *testing.T, d *DB, process string) int64 {
	t.Helper()
	found, err := d.client.Get(t.Context(), d.key(marked, process+"/"), clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return found.Count
}

// TestMarksOfOthers opens a store, with a clock that is right or two days ahead, in which a
// process that was killed left its marks long ago, and a follower has some: only the former go,
// and the follower goes on. If a process was ahead, those of the follower may go, the newest last,
// by which it notices that nothing is missing.
func TestMarksOfOthers(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t)
	const many, ahead = 200, 48 * time.Hour
	c := Config{Endpoints: []string{m.URL}}
	f := follow(t, c, Following{Staleness: time.Second, Notice: func(err error) { t.Error(err) }})
	put := func(process string, n int, at time.Time) {
		t.Helper()
		for i := range n {
			if _, err := f.client.Put(t.Context(), f.key(marked, fmt.Sprint(process, "/", i)), fmt.Sprint(at.Unix(), " x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("killed", 10, time.Now().Add(-ahead))
	var own []*mark
	for range many {
		one, err := f.marks.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		own = append(own, one)
	}
	f.marks.free = own
	putIn(t, f, "first", "a", "x")
	remove := func(at time.Time) {
		t.Helper()
		d := openAt(t, c)
		if err := errors.Join(d.marks.removeOld(t.Context(), at), d.Close()); err != nil {
			t.Fatal(err)
		}
		putIn(t, f, "first", "a", at.String())
		f.await(t.Context(), time.Now())
	}
	remove(time.Now().Add(ahead))
	if killed, kept := countMarks(t, f.DB, "killed"), countMarks(t, f.DB, f.marks.own); killed != 0 || kept != many {
		t.Errorf("%d of the killed process are left, and %d of the other", killed, kept)
	}
	for _, least := range []int64{many - maxOperations, 1} {
		put("ahead", 1, time.Now().Add(ahead))
		remove(time.Now().Add(ahead))
		if kept := countMarks(t, f.DB, f.marks.own); kept < least || kept > least+1 {
			t.Errorf("%d are left, want %d", kept, least)
		}
	}
}
