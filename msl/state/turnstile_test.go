package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A slowStore is one that several servers share, where a change takes a second.
type slowStore struct {
	kvtest.Memory
	updates atomic.Int32
	fails   error
}

func (s *slowStore) Recall(ctx context.Context, fn func(kv.Reader) error) error {
	return s.View(ctx, fn)
}

func (s *slowStore) Update(ctx context.Context, fn func(kv.Tx) error) error {
	s.updates.Add(1)
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.fails != nil {
		return s.fails
	}
	return s.Memory.Update(ctx, fn)
}

// TestTogether joins the ids that come while another one is written, each with its own
// outcome: of each pair with the same id, one is accepted.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowStore{}
		tokens := &Tokens{records: records{store}}
		began := time.Now()
		if err := tokens.AcceptID(t.Context(), "first", 1, 1); err != nil || time.Since(began) != time.Second {
			t.Errorf("one alone took %v: %v", time.Since(began), err)
		}
		var accepted, replayed atomic.Int32
		var all sync.WaitGroup
		for i := range 1 + 2*maxTogether {
			all.Go(func() {
				switch err := tokens.AcceptID(t.Context(), fmt.Sprint("device ", i/2), 1, 7); {
				case err == nil:
					accepted.Add(1)
				case errors.Is(err, msl.ErrMessageReplayed):
					replayed.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if accepted.Load() != maxTogether+1 || replayed.Load() != maxTogether {
			t.Errorf("%d accepted, %d replayed", accepted.Load(), replayed.Load())
		}
		if n, took := store.updates.Load()-1, time.Since(began)-time.Second; n != 3 || took != 3*time.Second {
			t.Errorf("%d transactions in %v", n, took)
		}
		newest, err := tokens.Renew(t.Context(), "first", 1, 1)
		if _, again := tokens.Renew(t.Context(), "first", 1, newest); err != nil || newest != 2 || again != nil {
			t.Errorf("renewed to %d: %v, %v", newest, err, again)
		}
	})
}

// TestLeaving has callers leave: those who stay get their outcome, and without any of them
// nothing is tried any more.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowStore{fails: errors.New("lost")}
		tokens := &Tokens{records: records{store}}
		short, end := context.WithTimeout(t.Context(), time.Millisecond)
		defer end()
		var all sync.WaitGroup
		for i, ctx := range []context.Context{t.Context(), short, t.Context()} {
			all.Go(func() {
				time.Sleep(time.Duration(i) * time.Microsecond)
				began, want := time.Now(), store.fails
				if ctx == short {
					want = context.DeadlineExceeded
				}
				if err := tokens.AcceptID(ctx, "device", 1, int64(i+1)); !errors.Is(err, want) {
					t.Errorf("%d: %v after %v", i, err, time.Since(began))
				}
			})
		}
		all.Wait()
		began := time.Now()
		short, end = context.WithTimeout(t.Context(), time.Millisecond)
		defer end()
		if err := tokens.AcceptID(short, "device", 1, 9); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		synctest.Wait()
		tokens.steps.mu.Lock()
		defer tokens.steps.mu.Unlock()
		if tokens.steps.running || time.Since(began) > 10*time.Millisecond {
			t.Errorf("it is still tried after %v", time.Since(began))
		}
	})
}

// A forgedStore has a record that is not authentic.
type forgedStore struct {
	slowStore
	forged []byte
}

type forgedTx struct {
	kv.Tx
	forged []byte
}

func (tx forgedTx) Get(table string, key []byte) ([]byte, error) {
	if bytes.Equal(key, tx.forged) {
		return nil, kv.ErrForged
	}
	return tx.Tx.Get(table, key)
}

func (s *forgedStore) Update(ctx context.Context, fn func(kv.Tx) error) error {
	return s.slowStore.Update(ctx, func(tx kv.Tx) error { return fn(forgedTx{tx, s.forged}) })
}

// TestForgedAmongOthers has the record of one token forged: the ids of others that come at
// the same time are accepted.
func TestForgedAmongOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forged, err := pairKey("device 3", 1)
		if err != nil {
			t.Fatal(err)
		}
		store := &forgedStore{forged: forged}
		tokens := &Tokens{records: records{store}}
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				err := tokens.AcceptID(t.Context(), fmt.Sprint("device ", i), 1, 7)
				if forged := i == 3; forged != errors.Is(err, kv.ErrForged) || !forged && err != nil {
					t.Errorf("device %d: %v", i, err)
				}
			})
		}
		all.Wait()
	})
}
