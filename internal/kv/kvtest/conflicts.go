package kvtest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// largeReads checks that a transaction which reads far more records than it changes, one
// at a time and as a range, sees each concurrent change of one.
func largeReads(t *testing.T, s kv.Store) {
	const many, long = 500, 200
	key := func(i int) []byte { return fmt.Appendf(nil, "%04d%s", i, strings.Repeat("k", long)) }
	put(t, s, "second", string(key(7)), "0")
	var wait sync.WaitGroup
	count := func(read func(tx kv.Tx) (string, error)) {
		wait.Go(func() {
			for range 5 {
				err := s.Update(t.Context(), func(tx kv.Tx) error {
					old, err := read(tx)
					n, errNumber := strconv.Atoi(old)
					return errors.Join(err, errNumber, tx.Put("second", key(7), fmt.Append(nil, n+1)))
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	count(func(tx kv.Tx) (old string, err error) {
		for i := range many {
			v, errGet := tx.Get("second", key(i))
			old, err = old+string(v), errors.Join(err, errGet)
		}
		return old, err
	})
	count(func(tx kv.Tx) (string, error) {
		page, err := tx.Range("second", nil, nil, many)
		if len(page) != 1 {
			return "", errors.Join(err, fmt.Errorf("%d records", len(page)))
		}
		return string(page[0].Value), err
	})
	wait.Wait()
	want(t, s, "second", string(key(7)), "10")
}

// vanished lets two transactions remove records if a range has more than one: one record
// must remain.
func vanished(t *testing.T, s kv.Store) {
	for range 20 {
		put(t, s, "first", "a", "x")
		put(t, s, "first", "b", "x")
		var wait sync.WaitGroup
		for _, key := range []string{"a", "b"} {
			wait.Go(func() {
				err := s.Update(t.Context(), func(tx kv.Tx) error {
					if page, err := tx.Range("first", nil, nil, 9); err != nil || len(page) < 2 {
						return err
					}
					return tx.Delete("first", []byte(key))
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if get(t, s, "first", "a") == get(t, s, "first", "b") {
			t.Fatal("not exactly one was removed")
		}
	}
}

// conflict lets many goroutines read and write one record: each must see what the others
// wrote.
func conflict(t *testing.T, s kv.Store) {
	const many = 50
	var wait sync.WaitGroup
	seen := make([]string, many)
	for i := range many {
		wait.Go(func() {
			err := s.Update(t.Context(), func(tx kv.Tx) error {
				old, err := read(tx, "first", "counter")
				seen[i] = old
				return errors.Join(err, tx.Put("first", []byte("counter"), []byte(strings.TrimPrefix(old, "none")+"x")))
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	slices.Sort(seen)
	if len(slices.Compact(seen)) != many {
		t.Error("two saw the same")
	}
	want(t, s, "first", "counter", strings.Repeat("x", many))
}

// crowd lets many transactions add a record if a range is empty: only one may find it
// empty.
func crowd(t *testing.T, s kv.Store) {
	full := errors.New("somebody was here")
	var wait sync.WaitGroup
	var mu sync.Mutex
	added := 0
	for i := range 50 {
		wait.Go(func() {
			err := s.Update(t.Context(), func(tx kv.Tx) error {
				if page, err := tx.Range("second", nil, nil, 1); err != nil || len(page) > 0 {
					return errors.Join(full, err)
				}
				return tx.Put("second", fmt.Append(nil, "key ", i), nil)
			})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				added++
			} else if !errors.Is(err, full) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if added != 1 {
		t.Errorf("%d found it empty", added)
	}
}
