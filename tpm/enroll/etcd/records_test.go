//go:build !noetcd

package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/internal/leaktest"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func record(n byte) enroll.Record {
	return enroll.Record{
		ID: enroll.ID{n}, Name: fmt.Sprint("box-", n), Registered: fmt.Sprint("box-", n), State: enroll.Enrolled,
		Updated: time.Unix(1_800_000_000+int64(n), 0), Since: time.Unix(1_800_000_000, 0),
		Certificates: []enroll.Certificate{{Serial: fmt.Sprint(n)}},
	}
}

func put(t testing.TB, r enroll.Records, all ...enroll.Record) {
	t.Helper()
	for _, one := range all {
		must(t, r.Update(t.Context(), func(tx enroll.Tx) error { return tx.Put(one) }))
	}
}

func opened(t testing.TB, c Config) *Records {
	t.Helper()
	r, err := Open(t.Context(), c)
	must(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

func TestOpening(t *testing.T) {
	m := etcdtest.Start(t)
	c := Config{Endpoints: []string{m.URL}, Key: kvtest.Secret("key")}
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrEmpty) {
		t.Errorf("nothing: %v", err)
	}
	db, err := c.place().Open(t.Context(), etcdkv.CreateNew) // and no root is made
	must(t, errors.Join(err, db.Close()))
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrEmpty) {
		t.Errorf("half made: %v", err)
	}
	must(t, Create(t.Context(), c))
	if err := Create(t.Context(), c); !errors.Is(err, ErrExists) {
		t.Errorf("a second time: %v", err)
	}
	put(t, opened(t, c), record(1))
	for name, key := range map[string]kvtest.Secret{"another key": "other", "no key": ""} {
		other := c
		if other.Key = nil; key != "" {
			other.Key = key
		}
		if r, err := Open(t.Context(), other); err == nil {
			t.Errorf("%s: opens", name)
			r.Close()
		}
	}
	// The records of a place where nothing was made yet are made by the second of two.
	c.Prefix = "half"
	db, err = c.place().Open(t.Context(), etcdkv.CreateNew)
	must(t, err, db.Close(), Create(t.Context(), c))
	opened(t, c)
}

// TestForged changes keys of etcd behind the servers' backs: none of them continues with it.
func TestForged(t *testing.T) {
	m := etcdtest.Start(t)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.URL}, Logger: zap.NewNop()})
	must(t, err)
	defer client.Close()
	n := 0
	for name, forge := range map[string]func(string){
		"a record put back": func(at string) { restore(t, client, at+"/~enrollments/\x02") },
		"a record removed":  func(at string) { drop(t, client, at+"/~enrollments/\x02") },
		"record and digest put back": func(at string) {
			restore(t, client, at+"/~enrollments/\x02")
			restore(t, client, at+"/digests/\x02")
		},
		"a name removed":     func(at string) { drop(t, client, at+"/names/box-2") },
		"a serial removed":   func(at string) { drop(t, client, at+"/serials/2") },
		"a standing removed": func(at string) { drop(t, client, at+"/since/box-2\x00\x02") },
	} {
		t.Run(name, func(t *testing.T) {
			n++
			c := Config{Endpoints: []string{m.URL}, Prefix: fmt.Sprint("place-", n), Key: kvtest.Secret("key")}
			must(t, Create(t.Context(), c))
			server := opened(t, c)
			revoked := record(2)
			revoked.State = enroll.Revoked
			put(t, server, record(1), record(2), revoked, record(3))
			forge(c.Prefix)
			look := func() error {
				_, err := server.Check()
				return errors.Join(err, server.View(t.Context(), func(tx enroll.Tx) error {
					_, err := tx.Get(enroll.ID{2})
					return err
				}))
			}
			for try := 0; !errors.Is(look(), ErrForged); try++ {
				if try > 5000 {
					t.Fatalf("it is not seen: %v", look())
				}
				time.Sleep(time.Millisecond)
			}
			command, err := Administer(t.Context(), c)
			must(t, err)
			defer command.Close()
			if _, err := command.Check(); !errors.Is(err, ErrForged) {
				t.Errorf("a command: %v", err)
			}
		})
	}
}

// one finds the key that begins so.
// TestForgedMeanwhile has a record put back after the copy was looked at, and before the
// record is read: what was decided by it does not count as done.
func TestForgedMeanwhile(t *testing.T) {
	m := etcdtest.Start(t)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.URL}, Logger: zap.NewNop()})
	must(t, err)
	defer client.Close()
	c := Config{Endpoints: []string{m.URL}, Prefix: "place", Key: kvtest.Secret("key")}
	must(t, Create(t.Context(), c))
	server := opened(t, c)
	revoked := record(2)
	revoked.State = enroll.Revoked
	put(t, server, record(2), revoked)
	var once sync.Once
	err = server.Update(t.Context(), func(tx enroll.Tx) error {
		once.Do(func() {
			restore(t, client, c.Prefix+"/~enrollments/\x02")
			restore(t, client, c.Prefix+"/digests/\x02")
		})
		r, err := tx.Get(enroll.ID{2})
		if err == nil {
			r.Name = "renewed"
			err = tx.Put(r)
		}
		return err
	})
	if !errors.Is(err, ErrForged) {
		t.Errorf("%v, want %v", err, ErrForged)
	}
}

func one(t *testing.T, c *clientv3.Client, prefix string) string {
	t.Helper()
	found, err := c.Get(t.Context(), prefix, clientv3.WithPrefix())
	must(t, err)
	if len(found.Kvs) != 1 {
		t.Fatalf("%d keys begin with %q", len(found.Kvs), prefix)
	}
	return string(found.Kvs[0].Key)
}

func drop(t *testing.T, c *clientv3.Client, prefix string) {
	t.Helper()
	_, err := c.Delete(t.Context(), one(t, c, prefix))
	must(t, err)
}

// restore puts back what a key was when it was made.
func restore(t *testing.T, c *clientv3.Client, prefix string) {
	t.Helper()
	key := one(t, c, prefix)
	now, err := c.Get(t.Context(), key)
	must(t, err)
	then, err := c.Get(t.Context(), key, clientv3.WithRev(now.Kvs[0].CreateRevision))
	must(t, err)
	_, err = c.Put(t.Context(), key, string(then.Kvs[0].Value))
	must(t, err)
}

// TestImport moves records from a file to etcd and back.
func TestImport(t *testing.T) {
	m := etcdtest.Start(t)
	c := Config{Endpoints: []string{m.URL}, Key: kvtest.Secret("key")}
	path := filepath.Join(t.TempDir(), "from")
	f, err := enroll.OpenFile(path)
	must(t, err)
	defer f.Close()
	for n := range byte(50) {
		put(t, f, record(n))
	}
	want, err := f.Check()
	must(t, err)
	interrupted, interrupt := context.WithCancel(t.Context())
	if _, err := Import(interrupted, c, f.Stored, func(int) { interrupt() }); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if _, err := Administer(t.Context(), c); !errors.Is(err, kv.ErrDamaged) {
		t.Errorf("a part opens: %v", err)
	}
	if _, err := Open(t.Context(), c); !errors.Is(err, kv.ErrUnfinished) {
		t.Errorf("a part opens at a server: %v, want ErrUnfinished", err)
	}
	got, err := Import(t.Context(), c, f.Stored, nil)
	if err != nil || !maps.Equal(got, want) {
		t.Fatalf("%v, want %v: %v", got, want, err)
	}
	if _, err := Import(t.Context(), c, f.Stored, nil); !errors.Is(err, ErrExists) {
		t.Errorf("a second time: %v", err)
	}
	r := opened(t, c)
	put(t, r, record(50))
	back := filepath.Join(t.TempDir(), "back")
	if got, err = enroll.WriteFile(t.Context(), back, r.Stored); err != nil || got[enroll.Enrolled] != 51 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err = enroll.WriteFile(t.Context(), back, r.Stored); !errors.Is(err, enroll.ErrExists) {
		t.Errorf("over a file: %v", err)
	}
}

// TestWindow lets two servers do together what one may.
func TestWindow(t *testing.T) {
	m := etcdtest.Start(t)
	c := Config{Endpoints: []string{m.URL}, Key: kvtest.Secret("key")}
	must(t, Create(t.Context(), c))
	a, b := opened(t, c), opened(t, c)
	began, all := time.Now(), 0
	for range 10 {
		for _, r := range []*Records{a, b} {
			n, err := r.Take(t.Context(), 2, 1)
			must(t, err)
			all += n
		}
	}
	if most := 5 + int(2*time.Since(began).Seconds()) + 1; all < 5 || all > most {
		t.Errorf("%d of %d", all, most)
	}
	must(t, a.Verify(t.Context()))
	now := time.Now()
	for name, c := range map[string]struct {
		b    bucket
		left float64
	}{
		"new":                      {bucket{}, 5},
		"later":                    {bucket{1, now.Add(-time.Second)}, 3},
		"much later":               {bucket{1, now.Add(-time.Hour)}, 5},
		"by a clock that is ahead": {bucket{1, now.Add(time.Second)}, 1},
		"by one that was wrong":    {bucket{1, now.Add(time.Hour)}, 5},
	} {
		if got := c.b.fill(2, now); got.left != c.left {
			t.Errorf("%s: %v left, want %v", name, got.left, c.left)
		}
	}
	if got, want := decodeBucket(bucket{2.5, now}.encode()), (bucket{2.5, now}); got.left != want.left || !got.at.Equal(want.at) {
		t.Errorf("%v, want %v", got, want)
	}
}
