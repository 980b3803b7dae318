//go:build !noetcd

package etcdkv

import (
	"errors"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/internal/porttest"
)

// TestRestored loses changes, as an operator does who restores a snapshot while a follower
// runs. With further changes the cluster looks as new as it was. The follower believes
// nothing from then on, also after etcd was restarted.
func TestRestored(t *testing.T) {
	t.Parallel()
	for name, later := range map[string]int{"older": 0, "as new": 50} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := etcdtest.StartDurable(t)
			link := porttest.NewLink(t, strings.TrimPrefix(m.URL, "http://"))
			f := follow(t, Config{Endpoints: []string{"http://" + link.Addr().String()}}, Following{})
			putIn(t, f, "second", "id", "1")
			snapshot := m.Save(t)
			putIn(t, f, "second", "id", "2")
			link.Sever()
			m.Kill()
			m.Restore(t, snapshot)
			d := follow(t, Config{Endpoints: []string{m.URL}}, Following{})
			for range later {
				putIn(t, d, "second", "other", "x")
			}
			link.Mend()
			wentBack(t, f)
			m.Kill()
			m.Restart(t)
			for range later {
				wentBack(t, f)
			}
		})
	}
}

// wentBack waits until a follower says that etcd went back. Until then, no change of it finds
// the value of before.
func wentBack(t *testing.T, f *Follower) {
	t.Helper()
	eventually(t, "the follower does not say that etcd went back", func() bool {
		err := f.Update(t.Context(), func(tx kv.Tx) error {
			value, err := tx.Get("second", []byte("id"))
			if err != nil {
				return err
			}
			return tx.Put("second", []byte("id"), append(value, '+'))
		})
		if err == nil {
			t.Fatal("a change was made to what was restored")
		}
		_, errRecall := recall(f, "first", "id")
		return errors.Is(err, kv.ErrDamaged) && errors.Is(errRecall, kv.ErrDamaged) && strings.Contains(err.Error(), "went back")
	})
}

// TestOtherCluster names a member of another cluster among the endpoints: it is not believed,
// and the right one does everything. If it answers first, nothing is missed or made there.
func TestOtherCluster(t *testing.T) {
	t.Parallel()
	m, other := etcdtest.Start(t), etcdtest.Start(t)
	openAt(t, Config{Endpoints: []string{m.URL}})
	const want = "an endpoint belongs to another cluster"
	both := Config{Endpoints: []string{m.URL, other.URL}, Prefix: "new"}
	const different = "the endpoints belong to different clusters: http://127.0.0.1:"
	for _, how := range []Opening{OpenOrCreate, CreateNew, OpenExisting} {
		_, err := Open(t.Context(), both, layout(), how)
		wantErr(t, err, nil, different)
	}
	both.Prefix = ""
	var d *DB
	var err error
	for range 10 { // whoever answers first
		if d != nil {
			d.Close()
		}
		if d, err = Open(t.Context(), both, layout(), OpenExisting); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Follow(t.Context(), d, Following{Notice: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 50 {
		if err := f.Update(t.Context(), func(tx kv.Tx) error { return increment(tx, []byte("n")) }); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the copy has not all changes", func() bool { got, err := recall(f, "first", "n"); return got == "50" && err == nil })
	if all := f.Members(t.Context()); all[0].Err != nil || all[1].Err == nil || !strings.Contains(all[1].Err.Error(), want) {
		t.Errorf("%+v", all)
	}
}
