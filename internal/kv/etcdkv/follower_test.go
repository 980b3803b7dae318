//go:build !noetcd

package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/internal/porttest"
)

// followedLayout leaves out the second table.
func followedLayout() Layout {
	return Layout{Kind: "test", Tables: kvtest.Tables(), Apart: kvtest.Tables()[1:]}
}

func follow(t testing.TB, c Config, how Following) *Follower {
	t.Helper()
	d, err := Open(t.Context(), c, followedLayout(), OpenOrCreate)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Follow(t.Context(), d, how)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// recall returns a value in the copy, or "none" if there is none.
func recall(f *Follower, table, key string) (value string, err error) {
	err = f.Recall(context.Background(), func(r kv.Reader) error {
		v, err := r.Get(table, []byte(key))
		value = string(v)
		if v == nil {
			value = "none"
		}
		return err
	})
	return value, err
}

func putIn(t testing.TB, s kv.Store, table, key, value string) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx kv.Tx) error { return tx.Put(table, []byte(key), []byte(value)) }); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestFollowerIsAStore(t *testing.T) {
	m := etcdtest.Start(t)
	n := 0
	kvtest.Run(t, func(t *testing.T) kv.Store {
		n++
		return follow(t, Config{Endpoints: []string{m.URL}, Prefix: fmt.Sprint("store", n)}, Following{})
	})
}

// TestFollowerCloses closes followers in the middle of a check: that is not a loss of etcd.
func TestFollowerCloses(t *testing.T) {
	m := etcdtest.Start(t)
	for range 100 {
		f := follow(t, Config{Endpoints: []string{m.URL}}, Following{Notice: func(err error) { t.Error(err) }})
		f.now <- struct{}{}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFollowerImpatient has a copy that may be no older than the shortest time.
func TestFollowerImpatient(t *testing.T) {
	m := etcdtest.Start(t)
	f := follow(t, Config{Endpoints: []string{m.URL}}, Following{Staleness: 1})
	if err := f.Recall(t.Context(), func(kv.Reader) error { return nil }); err != nil && !errors.Is(err, kv.ErrStale) {
		t.Error(err)
	}
}

func TestFollower(t *testing.T) {
	m := etcdtest.Start(t)
	at := Config{Endpoints: []string{m.URL}}
	one, other := follow(t, at, Following{}), follow(t, at, Following{})
	for i := range 20 {
		value := fmt.Sprint(i)
		putIn(t, one, "first", "key", value)
		if got, err := recall(one, "first", "key"); got != value || err != nil {
			t.Fatalf("own change %s is %s in the copy: %v", value, got, err)
		}
		eventually(t, "another's change is not in the copy", func() bool {
			got, err := recall(other, "first", "key")
			return got == value && err == nil
		})
	}
	if err := one.Update(t.Context(), func(tx kv.Tx) error { return tx.Delete("first", []byte("key")) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another's removal is not in the copy", func() bool {
		got, err := recall(other, "first", "key")
		return got == "none" && err == nil
	})
	if _, err := recall(one, "second", "key"); err == nil {
		t.Error("a table that is apart was read from the copy")
	}
	late := follow(t, at, Following{})
	putIn(t, one, "first", "a", "1")
	eventually(t, "what is opened later does not follow", func() bool { got, _ := recall(late, "first", "a"); return got == "1" })
}

// TestFollowerStale has etcd stand still: the copy is used for a while, changes fail at
// once, and afterwards all is as before.
func TestFollowerStale(t *testing.T) {
	m := etcdtest.Start(t)
	notices := make(chan error, 10)
	f := follow(t, Config{Endpoints: []string{m.URL}, Timeout: 200 * time.Millisecond},
		Following{Staleness: 500 * time.Millisecond, Notice: func(err error) { notices <- err }})
	putIn(t, f, "first", "key", "1")
	m.Stop()
	if got, err := recall(f, "first", "key"); got != "1" || err != nil {
		t.Errorf("the copy is %s at first: %v", got, err)
	}
	if err := <-notices; err == nil {
		t.Error("no reason")
	}
	shortest := time.Hour
	for range 20 { // others may keep the processors
		began := time.Now()
		if err := f.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("second", []byte("key"), nil) }); err == nil {
			t.Error("a change without etcd")
		}
		shortest = min(shortest, time.Since(began))
	}
	if shortest > 100*time.Millisecond {
		t.Errorf("a change without etcd took %v", shortest)
	}
	eventually(t, "the copy is not stale", func() bool { _, err := recall(f, "first", "key"); return errors.Is(err, kv.ErrStale) })
	m.Continue()
	if err := <-notices; err != nil {
		t.Errorf("etcd is back, but the notice is %v", err)
	}
	if got, err := recall(f, "first", "key"); got != "1" || err != nil {
		t.Errorf("the copy is %s afterwards: %v", got, err)
	}
	putIn(t, f, "first", "key", "2")
}

// TestHalfOpen has a firewall forget the connections to etcd, which nobody closes: a follower
// with one endpoint goes on over another connection within 20 seconds, and one whose other
// endpoints answer hardly notices.
func TestHalfOpen(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("it takes half a minute: set MSL_SOAK=1")
	}
	members := etcdtest.StartCluster(t, 3)
	link := porttest.NewLink(t, strings.TrimPrefix(members[0].URL, "http://"))
	at := "http://" + link.Addr().String()
	for name, endpoints := range map[string][]string{"one": {at}, "three": {at, members[1].URL, members[2].URL}} {
		f := follow(t, Config{Endpoints: endpoints, Prefix: name, Timeout: 2 * time.Second}, Following{})
		putIn(t, f, "second", "a", "1")
		link.Strand()
		began, failed := time.Now(), 0
		for end := began.Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if f.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("second", []byte("a"), nil) }) != nil {
				failed++
				began = time.Now()
			}
		}
		last := 20*time.Second - time.Since(began)
		t.Logf("%s: %d changes failed, the last after %v", name, failed, last)
		if last > 18*time.Second || name == "three" && failed > 0 {
			t.Errorf("%s: %d changes failed, the last after %v", name, failed, last)
		}
	}
}

// TestFollowerEnds has a request fail because the follower ends: etcd is not lost.
func TestFollowerEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := &Follower{Following: Following{Notice: func(err error) { t.Error(err) }}}
	f.note(ctx, ctx.Err())
	if f.failed != nil {
		t.Error(f.failed)
	}
}

// TestFollowerBehind compacts what a watch has not delivered.
func TestFollowerBehind(t *testing.T) {
	m := etcdtest.StartDurable(t)
	at := Config{Endpoints: []string{m.URL}, Timeout: 500 * time.Millisecond}
	f := follow(t, at, Following{})
	plain, err := Open(t.Context(), at, followedLayout(), OpenExisting)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plain.Close() })
	m.Kill()
	m.Restart(t)
	for i := range 50 {
		_ = plain.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("first", []byte("key"), []byte(fmt.Sprint(i))) })
	}
	putIn(t, plain, "first", "key", "last")
	answer, err := plain.client.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plain.client.Compact(t.Context(), answer.Header.Revision); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the copy does not recover", func() bool { got, err := recall(f, "first", "key"); return got == "last" && err == nil })
}

// TestFollowerDamage writes a record past the store, and removes the store.
func TestFollowerDamage(t *testing.T) {
	for name, damage := range map[string]func(c *clientv3.Client, prefix string) error{
		"a record": func(c *clientv3.Client, prefix string) error {
			_, err := c.Put(context.Background(), prefix+"first/key", "damaged")
			return err
		},
		"all": func(c *clientv3.Client, prefix string) error {
			_, err := c.Delete(context.Background(), prefix, clientv3.WithPrefix())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := etcdtest.Start(t)
			f := follow(t, Config{Endpoints: []string{m.URL}}, Following{})
			putIn(t, f, "first", "key", "1")
			if err := damage(f.client, f.prefix); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the damage is not noticed", func() bool {
				_, err := recall(f, "first", "key")
				return errors.Is(err, kv.ErrDamaged) || errors.Is(err, kv.ErrEmpty)
			})
		})
	}
}

// TestFollowMuch copies for longer than the copy may be old.
func TestFollowMuch(t *testing.T) {
	m := etcdtest.Start(t)
	at := Config{Endpoints: []string{m.URL}}
	one := follow(t, at, Following{})
	for i := range 30 {
		err := one.Update(t.Context(), func(tx kv.Tx) (err error) {
			for j := range kv.MaxChanges {
				err = errors.Join(err, tx.Put("first", fmt.Appendf(nil, "%05d", 100*i+j), make([]byte, 100)))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	late := follow(t, at, Following{Staleness: time.Second, Observer: slow{}})
	err := late.Recall(t.Context(), func(r kv.Reader) error {
		all, err := r.Range("first", nil, nil, 5000)
		if len(all) != 3000 {
			t.Errorf("%d records", len(all))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A slow observer takes longer than the copy may be old.
type slow struct{}

func (slow) Reset()                                 { time.Sleep(1200 * time.Millisecond) }
func (slow) Changed(string, []byte, []byte, []byte) {}
