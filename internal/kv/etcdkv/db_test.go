//go:build !noetcd

package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

func layout() Layout { return Layout{Kind: "test", Tables: kvtest.Tables()} }

func openAt(t testing.TB, c Config) *DB {
	t.Helper()
	d, err := Open(t.Context(), c, layout(), OpenOrCreate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestStore(t *testing.T) {
	m := etcdtest.Start(t)
	n := 0
	kvtest.Run(t, func(t *testing.T) kv.Store {
		n++
		return openAt(t, Config{Endpoints: []string{m.URL}, Prefix: fmt.Sprint("store", n)})
	})
}

// TestSeveralClients runs the tests of conflicts with every transaction on another
// connection.
func TestSeveralClients(t *testing.T) {
	m := etcdtest.Start(t)
	n := 0
	kvtest.Run(t, func(t *testing.T) kv.Store {
		n++
		s := &several{}
		for range 4 {
			s.all = append(s.all, openAt(t, Config{Endpoints: []string{m.URL}, Prefix: fmt.Sprint("store", n)}))
		}
		return s
	})
}

// several is a store that takes turns between its own.
type several struct {
	all  []*DB
	next atomic.Int64
}

func (s *several) one() *DB { return s.all[int(s.next.Add(1))%len(s.all)] }

func (s *several) View(ctx context.Context, fn func(kv.Reader) error) error {
	return s.one().View(ctx, fn)
}

func (s *several) Update(ctx context.Context, fn func(kv.Tx) error) error {
	return s.one().Update(ctx, fn)
}

func wantErr(t *testing.T, err, is error, part string) {
	t.Helper()
	if err == nil || is != nil && !errors.Is(err, is) || !strings.Contains(fmt.Sprint(err), part) || strings.Contains(fmt.Sprint(err), "\n") {
		t.Errorf("error %v, want %v with %q on one line", err, is, part)
	}
}

func TestOpen(t *testing.T) {
	m := etcdtest.Start(t)
	ctx := t.Context()
	c := Config{Endpoints: []string{m.URL}, Prefix: "a"}
	_, err := Open(ctx, c, layout(), OpenExisting)
	wantErr(t, err, kv.ErrEmpty, `no store at "a"`)
	d, err := Open(ctx, c, layout(), CreateNew)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = Open(ctx, c, layout(), CreateNew)
	wantErr(t, err, kv.ErrExists, "another prefix")
	_, err = Open(ctx, c, Layout{Kind: "other", Tables: kvtest.Tables()}, OpenOrCreate)
	wantErr(t, err, kv.ErrFormat, `the kind "test"`)
	for _, below := range []string{"a/b", "a/b/c/", "a/second"} {
		_, err = Open(ctx, Config{Endpoints: c.Endpoints, Prefix: below}, layout(), CreateNew)
		wantErr(t, err, kv.ErrFormat, `a store is at "a"`)
	}
	other, err := Open(ctx, Config{Endpoints: c.Endpoints, Prefix: "a-2/~other"}, layout(), CreateNew)
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	m.Control(t, "put", "a/second0/x", "y")
	_, err = Open(ctx, c, layout(), OpenOrCreate)
	wantErr(t, err, kv.ErrFormat, "keys of others")
	m.Control(t, "del", "a/second0/x")
	newer := kv.Frame(kv.Settings, []byte(formatKey), []byte(`{"kind":"test","version":2}`))
	if _, err := d.client.Put(ctx, "b/format/format", string(newer)); err != nil {
		t.Fatal(err)
	}
	c.Prefix = "b"
	_, err = Open(ctx, c, layout(), OpenOrCreate)
	wantErr(t, err, kv.ErrFormat, "use a newer msl-hsm")
	m.Control(t, "put", "c/first/x", "y")
	c.Prefix = "c/"
	_, err = Open(ctx, c, layout(), OpenOrCreate)
	wantErr(t, err, kv.ErrDamaged, "format record")
	err = d.View(ctx, func(r kv.Reader) error { _, err := r.Get("third", []byte("x")); return err })
	wantErr(t, err, nil, `no table "third"`)
}

// TestGone removes the store while it is open: that must not look as if nothing had
// happened.
func TestGone(t *testing.T) {
	m := etcdtest.Start(t)
	d := openAt(t, Config{Endpoints: []string{m.URL}})
	add := func(tx kv.Tx) error { return tx.Put("first", []byte("a"), []byte("x")) }
	look := func(r kv.Reader) error { _, err := r.Get("first", []byte("a")); return err }
	if err := d.Update(t.Context(), add); err != nil {
		t.Fatal(err)
	}
	m.Control(t, "put", "msl-hsm/first/a", "garbled")
	wantErr(t, d.View(t.Context(), look), kv.ErrDamaged, "checksum")
	wantErr(t, d.View(t.Context(), func(r kv.Reader) error { _ = look(r); return nil }), kv.ErrDamaged, "checksum")
	m.Control(t, "del", "--prefix", "msl-hsm/")
	wantErr(t, d.View(t.Context(), look), kv.ErrEmpty, "removed or replaced")
	wantErr(t, d.Update(t.Context(), add), kv.ErrEmpty, "removed or replaced")
	openAt(t, Config{Endpoints: []string{m.URL}})
	wantErr(t, d.View(t.Context(), look), kv.ErrEmpty, "removed or replaced")
	d.newest.Add(1000)
	e := openAt(t, Config{Endpoints: []string{m.URL}})
	e.newest.Add(1000)
	wantErr(t, e.View(t.Context(), look), kv.ErrDamaged, "went back")
}

func TestTooLarge(t *testing.T) {
	m := etcdtest.Start(t)
	d := openAt(t, Config{Endpoints: []string{m.URL}})
	err := d.Update(t.Context(), func(tx kv.Tx) (err error) {
		for i := range 200 {
			err = errors.Join(err, tx.Put("first", fmt.Append(nil, i), nil))
		}
		return err
	})
	wantErr(t, err, nil, "200 changes")
	err = d.Update(t.Context(), func(tx kv.Tx) error {
		return errors.Join(tx.Put("first", []byte("a"), make([]byte, kv.MaxValue)), tx.Put("first", []byte("b"), make([]byte, kv.MaxValue)))
	})
	wantErr(t, err, nil, "too large")
	err = d.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("first", []byte("a"), make([]byte, kv.MaxValue+1)) })
	wantErr(t, err, nil, "at most")
}

// TestCompacted compacts the revision that a transaction reads: it begins again.
func TestCompacted(t *testing.T) {
	m := etcdtest.Start(t)
	d := openAt(t, Config{Endpoints: []string{m.URL}})
	runs := 0
	err := d.View(t.Context(), func(r kv.Reader) error {
		runs++
		_, err := r.Get("first", []byte("a"))
		if runs == 1 {
			m.Control(t, "put", "other", "x")
			m.Control(t, "put", "other", "y")
			m.Control(t, "compact", strconv.FormatInt(d.newest.Load()+2, 10))
		}
		_, errNext := r.Get("first", []byte("b"))
		return errors.Join(err, errNext)
	})
	if err != nil || runs != 2 {
		t.Errorf("%d runs, %v", runs, err)
	}
}

// TestFull fills the database up to its quota: what is there can be read and followed, and
// changes are made again once there is space.
func TestFull(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, "--quota-backend-bytes", "2000000")
	at := Config{Endpoints: []string{m.URL}}
	f := follow(t, at, Following{})
	fill := func(i int) error {
		return f.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("second", fmt.Append(nil, i%2), make([]byte, 200000)) })
	}
	var err error
	for i := 0; i < 50 && err == nil; i++ {
		err = fill(i)
	}
	wantErr(t, err, nil, "alarm disarm")
	if _, err := recall(f, "first", "a"); err != nil {
		t.Errorf("the copy: %v", err)
	}
	if all := f.Members(t.Context()); all[0].Err == nil || !strings.Contains(all[0].Err.Error(), "alarm disarm") {
		t.Errorf("%+v", all)
	}
	late := follow(t, at, Following{})
	m.Control(t, "compact", strconv.FormatInt(late.newest.Load(), 10))
	m.Control(t, "defrag")
	m.Control(t, "alarm", "disarm")
	if err := fill(0); err != nil {
		t.Errorf("with space: %v", err)
	}
}

func TestClose(t *testing.T) {
	m := etcdtest.Start(t)
	d := openAt(t, Config{Endpoints: []string{m.URL}})
	if err := d.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("first", []byte("a"), nil) }); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	wantErr(t, d.View(t.Context(), func(kv.Reader) error { return nil }), errClosed, "closed")
	if left := m.Control(t, "get", "--prefix", "--keys-only", "msl-hsm/.marks/"); strings.TrimSpace(left) != "" {
		t.Errorf("marks are left: %s", left)
	}
	var stacks strings.Builder
	for wait := time.Millisecond; wait < 5*time.Second; wait *= 2 {
		stacks.Reset()
		pprof.Lookup("goroutine").WriteTo(&stacks, 2)
		if !strings.Contains(stacks.String(), "google.golang.org/grpc") {
			return
		}
		time.Sleep(wait)
	}
	t.Errorf("goroutines of the client are left:\n%s", stacks.String())
}

// TestOldMarks removes the marks of a process that ended long ago, and no others.
func TestOldMarks(t *testing.T) {
	m := etcdtest.Start(t)
	c := Config{Endpoints: []string{m.URL}}
	openAt(t, c)
	m.Control(t, "put", "msl-hsm/.marks/old/1", "1000000000 x")
	m.Control(t, "put", "msl-hsm/.marks/new/1", strconv.FormatInt(time.Now().Unix(), 10)+" x")
	openAt(t, c)
	if left := strings.Fields(m.Control(t, "get", "--prefix", "--keys-only", "msl-hsm/.marks/")); len(left) != 1 || left[0] != "msl-hsm/.marks/new/1" {
		t.Errorf("left are %q", left)
	}
}

// counted counts the requests that a client sends.
func counted(d *DB) *atomic.Int64 {
	n := &atomic.Int64{}
	d.client.KV = countingKV{d.client.KV, n}
	return n
}

type countingKV struct {
	clientv3.KV
	n *atomic.Int64
}

func (c countingKV) Txn(ctx context.Context) clientv3.Txn {
	c.n.Add(1)
	return c.KV.Txn(ctx)
}

func (c countingKV) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	c.n.Add(1)
	return c.KV.Do(ctx, op)
}

// TestRequests counts what transactions cost.
func TestRequests(t *testing.T) {
	m := etcdtest.Start(t)
	d := openAt(t, Config{Endpoints: []string{m.URL}})
	n := counted(d)
	get := func(r kv.Reader) error { _, err := r.Get("first", []byte("a")); return err }
	put := func(tx kv.Tx) error { return tx.Put("first", []byte("a"), nil) }
	if err := d.Update(t.Context(), put); err != nil { // makes a mark
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		run  func() error
		want int64
	}{
		"nothing":     {func() error { return d.Update(t.Context(), func(kv.Tx) error { return nil }) }, 0},
		"view":        {func() error { return d.View(t.Context(), get) }, 1},
		"only reads":  {func() error { return d.Update(t.Context(), func(tx kv.Tx) error { return get(tx) }) }, 1},
		"only writes": {func() error { return d.Update(t.Context(), put) }, 1},
		"both": {func() error {
			return d.Update(t.Context(), func(tx kv.Tx) error { return errors.Join(get(tx), put(tx)) })
		}, 2},
	} {
		n.Store(0)
		if err := c.run(); err != nil || n.Load() != c.want {
			t.Errorf("%s: %d requests, %v", name, n.Load(), err)
		}
	}
}

// BenchmarkUpdate compares a member with a file; both sync to the disk.
func BenchmarkUpdate(b *testing.B) {
	m := etcdtest.StartDurable(b)
	d := openAt(b, Config{Endpoints: []string{m.URL}})
	requests := counted(d)
	explain := func(_ string, err error) error { return err }
	file, err := boltkv.Open(filepath.Join(b.TempDir(), "file"), boltkv.Layout{Tables: kvtest.Tables(), Explain: explain}, boltkv.CreateNew)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprint("etcd/", clients), func(b *testing.B) {
			requests.Store(0)
			updates(b, d, clients)
			b.ReportMetric(float64(requests.Load())/float64(b.N), "requests/update")
		})
		b.Run(fmt.Sprint("file/", clients), func(b *testing.B) { updates(b, file, clients) })
	}
}

// updates counts in a record for each client.
func updates(b *testing.B, s kv.Store, clients int) {
	var wait sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	for i := range clients {
		wait.Go(func() {
			for left.Add(-1) >= 0 {
				if err := s.Update(b.Context(), func(tx kv.Tx) error { return increment(tx, fmt.Append(nil, i)) }); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

func increment(tx kv.Tx, key []byte) error {
	old, err := tx.Get("first", key)
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(string(old))
	return tx.Put("first", key, fmt.Append(nil, n+1))
}
