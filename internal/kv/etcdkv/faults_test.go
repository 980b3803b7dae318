//go:build !noetcd

package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
)

// A writer counts in a record of its own and in one that all share.
type writer struct {
	store     *DB
	key       []byte
	made      int // what its record must say at least
	uncertain int // how much more it may say, now or later
}

func (w *writer) write(ctx context.Context) error {
	return w.store.Update(ctx, func(tx kv.Tx) error {
		return errors.Join(increment(tx, w.key), increment(tx, []byte("total")))
	})
}

// count reads a counter. It is not there before it is first written.
func count(ctx context.Context, s kv.Store, key []byte) (n int, err error) {
	err = s.View(ctx, func(r kv.Reader) error {
		text, err := r.Get("first", key)
		if err != nil || text == nil {
			n = 0
			return err
		}
		n, err = strconv.Atoi(string(text))
		return err
	})
	return n, err
}

// run writes until stop is closed. Only after an uncertain error may the change have been
// made, or may it still be: etcd can have the request that it did not answer.
func (w *writer) run(t *testing.T, stop <-chan struct{}, acknowledged *atomic.Int64) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		err := w.write(t.Context())
		if err == nil {
			w.made++
			acknowledged.Add(1)
			continue
		}
		now, errCount := count(t.Context(), w.store, w.key)
		for errCount != nil && t.Context().Err() == nil {
			now, errCount = count(t.Context(), w.store, w.key)
		}
		if errors.Is(err, ErrUncertain) {
			w.uncertain++
		}
		if now < w.made || now > w.made+w.uncertain {
			t.Errorf("%s is %d after %d were made, %d are uncertain, and the error %v", w.key, now, w.made, w.uncertain, err)
			return
		}
	}
}

// TestFaults stops, continues, kills and restarts etcd while several clients write: each
// change that was acknowledged is there exactly once.
func TestFaults(t *testing.T) {
	m := etcdtest.StartDurable(t)
	var writers []*writer
	var acknowledged atomic.Int64
	var wait sync.WaitGroup
	stop := make(chan struct{})
	for i := range 4 {
		d := openAt(t, Config{Endpoints: []string{m.URL}, Timeout: 600 * time.Millisecond})
		for j := range 2 {
			w := &writer{store: d, key: fmt.Append(nil, "writer ", i, j)}
			writers = append(writers, w)
			wait.Go(func() { w.run(t, stop, &acknowledged) })
		}
	}
	for range 2 {
		for _, long := range []time.Duration{300 * time.Millisecond, 2 * time.Second} {
			progress(t, &acknowledged)
			m.Stop()
			<-time.After(long)
			m.Continue()
		}
		progress(t, &acknowledged)
		m.Kill()
		m.Restart(t)
	}
	progress(t, &acknowledged)
	close(stop)
	wait.Wait()
	checkSum(t, writers)
}

// progress waits until some more changes are acknowledged.
func progress(t *testing.T, acknowledged *atomic.Int64) {
	t.Helper()
	before := acknowledged.Load()
	for end := time.Now().Add(time.Minute); acknowledged.Load() < before+50; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no progress")
		}
	}
}

func checkSum(t *testing.T, writers []*writer) {
	t.Helper()
	sum, uncertain := 0, 0
	for _, w := range writers {
		n, err := count(t.Context(), w.store, w.key)
		if n < w.made || n > w.made+w.uncertain || err != nil {
			t.Errorf("%s is %d, want %d, or %d more: %v", w.key, n, w.made, w.uncertain, err)
		}
		sum += n
		uncertain += w.uncertain
	}
	total, err := count(t.Context(), writers[0].store, []byte("total"))
	if total != sum || err != nil {
		t.Errorf("the total is %d, want %d: %v", total, sum, err)
	}
	t.Logf("%d changes, %d uncertain errors", sum, uncertain)
}

// TestDeadline has etcd stand still: transactions end with their context, and never with
// a value.
func TestDeadline(t *testing.T) {
	m := etcdtest.Start(t)
	d := openAt(t, Config{Endpoints: []string{m.URL}, Timeout: time.Minute})
	if err := d.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("first", []byte("a"), []byte("x")) }); err != nil {
		t.Fatal(err)
	}
	m.Stop()
	defer m.Continue()
	for name, run := range map[string]func(context.Context) error{
		"view": func(ctx context.Context) error { _, err := count(ctx, d, []byte("a")); return err },
		"update": func(ctx context.Context) error {
			return d.Update(ctx, func(tx kv.Tx) error { return increment(tx, []byte("a")) })
		},
		"blind update": func(ctx context.Context) error {
			return d.Update(ctx, func(tx kv.Tx) error { return tx.Put("first", []byte("a"), nil) })
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		start := time.Now()
		err := run(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(start))
		}
		if errors.Is(err, ErrUncertain) != (name == "blind update") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLostAnswer lets a transaction be made and its answer be lost, or the request: in
// either case it is made once, without an error.
func TestLostAnswer(t *testing.T) {
	m := etcdtest.Start(t)
	for _, sent := range []bool{true, false} {
		d := openAt(t, Config{Endpoints: []string{m.URL}, Prefix: fmt.Sprint(sent)})
		if err := d.Update(t.Context(), func(tx kv.Tx) error { return increment(tx, []byte("a")) }); err != nil {
			t.Fatal(err)
		}
		lossy := &lossyKV{KV: d.client.KV, sent: sent}
		d.client.KV = lossy
		runs := 0
		err := d.Update(t.Context(), func(tx kv.Tx) error {
			runs++
			lossy.lose.Store(runs == 1)
			return tx.Put("first", []byte("b"), fmt.Append(nil, runs))
		})
		n, errCount := count(t.Context(), d, []byte("b"))
		if want := map[bool]int{true: 1, false: 2}[sent]; err != nil || errCount != nil || n != want || runs != want {
			t.Errorf("sent %v: %d after %d runs, %v, %v", sent, n, runs, err, errCount)
		}
	}
}
