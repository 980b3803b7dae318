// Package kvtest has the tests that every implementation of [kv.Store] must pass, and
// an implementation in memory for tests of packages that use a store.
package kvtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// Tables returns the tables that a store under test must have.
func Tables() []string { return []string{"first", "second"} }

// Run tests stores. Each call of open returns an empty store with the [Tables], which
// is closed when its test ends.
func Run(t *testing.T, open func(*testing.T) kv.Store) {
	for name, test := range map[string]func(*testing.T, kv.Store){
		"records":             records,
		"ranges":              ranges,
		"all":                 all,
		"bounds":              bounds,
		"bounds of an update": updateBounds,
		"large reads":         largeReads,
		"failure":             failure,
		"conflict":            conflict,
		"crowd":               crowd,
		"vanished":            vanished,
		"one moment":          oneMoment,
		"own changes":         ownChanges,
		"cancellation":        cancellation,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func put(t *testing.T, s kv.Store, table, key, value string) {
	t.Helper()
	update(t, s, func(tx kv.Tx) error { return tx.Put(table, []byte(key), []byte(value)) })
}

func update(t *testing.T, s kv.Store, fn func(kv.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// get returns a value, or "none" if there is none.
func get(t *testing.T, s kv.Store, table, key string) (value string) {
	t.Helper()
	err := s.View(t.Context(), func(r kv.Reader) (err error) {
		value, err = read(r, table, key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func read(r kv.Reader, table, key string) (string, error) {
	v, err := r.Get(table, []byte(key))
	if v == nil {
		return "none", err
	}
	return string(v), err
}

func want(t *testing.T, s kv.Store, table, key, value string) {
	t.Helper()
	if got := get(t, s, table, key); got != value {
		t.Errorf("%s: %.40q is %.40q, want %.40q", table, key, got, value)
	}
}

func records(t *testing.T, s kv.Store) {
	want(t, s, "first", "a", "none")
	put(t, s, "first", "a", "1")
	put(t, s, "first", "\x00\xff", "\x00")
	put(t, s, "first", "empty", "")
	want(t, s, "first", "a", "1")
	want(t, s, "first", "\x00\xff", "\x00")
	want(t, s, "first", "empty", "")
	want(t, s, "second", "a", "none")
	put(t, s, "first", "a", "2")
	put(t, s, "second", "a", "3")
	want(t, s, "first", "a", "2")
	for range 2 {
		update(t, s, func(tx kv.Tx) error { return tx.Delete("first", []byte("a")) })
		want(t, s, "first", "a", "none")
	}
	want(t, s, "second", "a", "3")
	key, value := []byte("mine"), []byte("before")
	update(t, s, func(tx kv.Tx) error {
		copy(key, "mine")
		copy(value, "before")
		err := tx.Put("first", key, value)
		copy(key, "gone")
		copy(value, "after!")
		return err
	})
	want(t, s, "first", "mine", "before")
	put(t, s, kv.Settings, "mine", "too")
	want(t, s, kv.Settings, "mine", "too")
}

// line formats pairs as one line.
func line(page []kv.Pair) string {
	var b strings.Builder
	for _, p := range page {
		fmt.Fprintf(&b, "%s=%s ", p.Key, p.Value)
	}
	return strings.TrimSpace(b.String())
}

func ranges(t *testing.T, s kv.Store) {
	update(t, s, func(tx kv.Tx) (err error) {
		for _, k := range []string{"b", "a", "c", "ab", "\xff"} {
			err = errors.Join(err, tx.Put("first", []byte(k), []byte(k)))
		}
		return errors.Join(err, tx.Put("second", []byte("aa"), nil))
	})
	for _, c := range []struct {
		from, to []byte
		limit    int
		want     string
	}{
		{nil, nil, 9, "a=a ab=ab b=b c=c \xff=\xff"},
		{nil, nil, 2, "a=a ab=ab"},
		{[]byte("ab"), nil, 9, "ab=ab b=b c=c \xff=\xff"},
		{[]byte("aa"), []byte("c"), 9, "ab=ab b=b"},
		{kv.After([]byte("ab")), []byte("c\x00"), 9, "b=b c=c"},
		{[]byte("a"), kv.PrefixEnd([]byte("a")), 9, "a=a ab=ab"},
		{[]byte("\xff"), kv.PrefixEnd([]byte("\xff")), 9, "\xff=\xff"},
		{[]byte("c"), []byte("b"), 9, ""},
		{[]byte("d"), []byte("e"), 9, ""},
	} {
		err := s.View(t.Context(), func(r kv.Reader) error {
			page, err := r.Range("first", c.from, c.to, c.limit)
			if got := line(page); got != c.want {
				t.Errorf("from %q to %q, %d: %q, want %q", c.from, c.to, c.limit, got, c.want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// all reads more than one page.
func all(t *testing.T, s kv.Store) {
	const many = 1000
	for start := 0; start < many; start += kv.MaxChanges {
		update(t, s, func(tx kv.Tx) (err error) {
			for i := start; i < min(start+kv.MaxChanges, many); i++ {
				err = errors.Join(err, tx.Put("first", fmt.Appendf(nil, "%04d", i), []byte("x")))
			}
			return err
		})
	}
	for _, c := range []struct{ from, to, want int }{{0, many, many}, {100, many, 900}, {100, 612, 512}, {5, 6, 1}, {6, 6, 0}} {
		var n int
		err := s.View(t.Context(), func(r kv.Reader) error {
			n = 0
			for p, err := range kv.All(r, "first", fmt.Appendf(nil, "%04d", c.from), fmt.Appendf(nil, "%04d", c.to)) {
				if err != nil {
					return err
				}
				if string(p.Key) != fmt.Sprintf("%04d", c.from+n) {
					return fmt.Errorf("%q at %d", p.Key, c.from+n)
				}
				n++
			}
			return nil
		})
		if n != c.want || err != nil {
			t.Errorf("%+v: %d, %v", c, n, err)
		}
	}
}

func bounds(t *testing.T, s kv.Store) {
	key, value := strings.Repeat("k", kv.MaxKey), strings.Repeat("v", kv.MaxValue)
	put(t, s, "first", key, value)
	want(t, s, "first", key, value)
	long := strings.Repeat("k", 1<<17)
	want(t, s, "first", long, "none")
	put(t, s, "first", "l", "x")
	err := s.View(t.Context(), func(r kv.Reader) error {
		page, err := r.Range("first", []byte(long), nil, 2)
		if line(page) != "l=x" {
			t.Errorf("after a long key: %.40q", line(page))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	want(t, s, "first", "", "none")
	if err := s.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("first", nil, []byte("x")) }); err == nil {
		t.Error("an empty key is taken")
	}
}

// updateBounds changes as much in one Update as every store accepts.
func updateBounds(t *testing.T, s kv.Store) {
	value := bytes.Repeat([]byte("v"), kv.MaxUpdate/kv.MaxChanges-3)
	keys := func(change func(key []byte) error) (err error) {
		for i := range kv.MaxChanges {
			err = errors.Join(err, change(fmt.Appendf(nil, "%03d", i)))
		}
		return err
	}
	update(t, s, func(tx kv.Tx) error {
		return keys(func(key []byte) error { return tx.Put("first", key, value) })
	})
	want(t, s, "first", "000", string(value))
	want(t, s, "first", fmt.Sprintf("%03d", kv.MaxChanges-1), string(value))
	update(t, s, func(tx kv.Tx) error {
		return keys(func(key []byte) error { return tx.Delete("first", key) })
	})
	want(t, s, "first", "000", "none")
}

// failure checks that a function that fails changes nothing, and that concurrent
// changes are kept.
func failure(t *testing.T, s kv.Store) {
	sick := errors.New("sick")
	var wait sync.WaitGroup
	for i := range 60 {
		wait.Go(func() {
			key := fmt.Sprint("key ", i)
			err := s.Update(t.Context(), func(tx kv.Tx) error {
				if i%3 == 1 {
					return sick
				}
				if err := tx.Put("first", []byte(key), []byte("x")); err != nil || i%3 == 0 {
					return err
				}
				return sick
			})
			if (err == sick) != (i%3 != 0) || err != nil && i%3 == 0 { // err is returned unchanged
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wait.Wait()
	for i := range 60 {
		value := "none"
		if i%3 == 0 {
			value = "x"
		}
		want(t, s, "first", fmt.Sprint("key ", i), value)
	}
	if err := s.View(t.Context(), func(kv.Reader) error { return sick }); err != sick {
		t.Error(err)
	}
}

// oneMoment reads two records that change together.
func oneMoment(t *testing.T, s kv.Store) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			err := s.Update(context.Background(), func(tx kv.Tx) error {
				v := fmt.Append(nil, i)
				return errors.Join(tx.Put("first", []byte("a"), v), tx.Put("second", []byte("b"), v))
			})
			if err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for range 100 {
		err := s.View(t.Context(), func(r kv.Reader) error {
			a, err := read(r, "first", "a")
			b, err2 := read(r, "second", "b")
			if a != b {
				t.Errorf("%s and %s", a, b)
			}
			return errors.Join(err, err2)
		})
		if err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-done
}

// ownChanges checks that a transaction reads its own writes.
func ownChanges(t *testing.T, s kv.Store) {
	put(t, s, "first", "b", "old")
	put(t, s, "first", "c", "old")
	update(t, s, func(tx kv.Tx) error {
		err := errors.Join(tx.Put("first", []byte("a"), []byte("new")), tx.Put("first", []byte("b"), []byte("new")), tx.Delete("first", []byte("c")))
		b, errGet := read(tx, "first", "b")
		c, errGone := read(tx, "first", "c")
		page, errRange := tx.Range("first", nil, nil, 9)
		if b != "new" || c != "none" || line(page) != "a=new b=new" {
			t.Errorf("b is %s, c is %s, all is %s", b, c, line(page))
		}
		return errors.Join(err, errGet, errGone, errRange)
	})
	update(t, s, func(tx kv.Tx) error { // from a range that is being changed
		for p, err := range kv.All(tx, "first", nil, nil) {
			if err != nil {
				return err
			}
			if err := tx.Delete("first", bytes.Clone(p.Key)); err != nil {
				return err
			}
		}
		return nil
	})
	want(t, s, "first", "a", "none")
	want(t, s, "first", "b", "none")
}

func cancellation(t *testing.T, s kv.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.View(ctx, func(kv.Reader) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	err := s.Update(ctx, func(tx kv.Tx) error { return tx.Put("first", []byte("a"), nil) })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	want(t, s, "first", "a", "none")
}
