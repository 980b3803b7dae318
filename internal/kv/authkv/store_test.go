package authkv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
)

func begun(t *testing.T) (*kvtest.Memory, *Store) {
	t.Helper()
	inner := &kvtest.Memory{}
	if err := Begin(t.Context(), inner, kvtest.Secret("key")); err != nil {
		t.Fatal(err)
	}
	return inner, Open(inner, kvtest.Secret("key"), []string{"first"})
}

func TestStore(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) kv.Store {
		_, s := begun(t)
		return s
	})
}

func put(t *testing.T, s kv.Store, table, key, value string) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx kv.Tx) error { return tx.Put(table, []byte(key), []byte(value)) }); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, s kv.Store, table, key string) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx kv.Tx) error { return tx.Delete(table, []byte(key)) }); err != nil {
		t.Fatal(err)
	}
}

// TestForged changes a store in every way past the one that authenticates it.
func TestForged(t *testing.T) {
	for name, forge := range map[string]func(*testing.T, kv.Store){
		"changed":          func(t *testing.T, s kv.Store) { put(t, s, "first", "a", "3") },
		"added":            func(t *testing.T, s kv.Store) { put(t, s, "first", "x", "1") },
		"removed":          func(t *testing.T, s kv.Store) { remove(t, s, "first", "a") },
		"put back":         func(t *testing.T, s kv.Store) { put(t, s, "first", "a", "1") },
		"a setting":        func(t *testing.T, s kv.Store) { put(t, s, kv.Settings, "began", "1") },
		"moved":            func(t *testing.T, s kv.Store) { remove(t, s, "first", "a"); put(t, s, "first", "c", "2") },
		"exchanged":        func(t *testing.T, s kv.Store) { put(t, s, "first", "a", "b"); put(t, s, "first", "b", "2") },
		"the root removed": func(t *testing.T, s kv.Store) { remove(t, s, kv.Settings, rootKey) },
		"the root cut":     func(t *testing.T, s kv.Store) { put(t, s, kv.Settings, rootKey, "x") },
		"another's root": func(t *testing.T, s kv.Store) {
			if err := NewSeen(nil).MakeRoot(t.Context(), s, kvtest.Secret("other")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inner, s := begun(t)
			put(t, s, "first", "a", "1")
			put(t, s, "first", "a", "2")
			put(t, s, "first", "b", "b")
			put(t, s, "second", "apart", "1")
			if err := s.Verify(t.Context()); err != nil {
				t.Fatal(err)
			}
			forge(t, inner)
			if err := s.Verify(t.Context()); !errors.Is(err, kv.ErrForged) {
				t.Errorf("error %v", err)
			}
			// The forgery does not become right by the next change.
			_ = s.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("first", []byte("d"), nil) })
			if err := s.Verify(t.Context()); !errors.Is(err, kv.ErrForged) {
				t.Errorf("after a change: error %v", err)
			}
		})
	}
}

// TestBegunTwice makes a root late: what others did after they made theirs stays authentic.
func TestBegunTwice(t *testing.T) {
	inner, s := begun(t)
	put(t, s, "first", "a", "1")
	if err := Begin(t.Context(), inner, kvtest.Secret("key")); !errors.Is(err, kv.ErrExists) {
		t.Errorf("error %v, want ErrExists", err)
	}
	if err := s.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestApart(t *testing.T) {
	inner, s := begun(t)
	put(t, s, "second", "a", "1")
	put(t, inner, "second", "a", "2")
	if err := s.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSumAtOnce has many change the same records.
func TestSumAtOnce(t *testing.T) {
	_, s := begun(t)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for n := range 20 {
				put(t, s, "first", fmt.Sprint(n%5), fmt.Sprint(i, n))
				if n%3 == 0 {
					remove(t, s, "first", fmt.Sprint(n%4))
				}
			}
		})
	}
	wait.Wait()
	if err := s.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// A failing key is not one that says no.
type failing struct{}

var errFailing = errors.New("the token is lost")

func (failing) Tag([]byte) ([]byte, error)         { return nil, errFailing }
func (failing) Check([]byte, []byte) (bool, error) { return false, errFailing }

// followed is a shared store whose copy is what it has.
type followed struct {
	kv.Store
	seen *Seen
}

func (f *followed) Recall(ctx context.Context, fn func(kv.Reader) error) error {
	return f.View(ctx, func(r kv.Reader) error {
		f.seen.Reset()
		for _, table := range []string{kv.Settings, "first"} {
			for p, err := range kv.All(r, table, nil, nil) {
				if err != nil {
					return err
				}
				f.seen.Changed(table, p.Key, nil, p.Value)
			}
		}
		return fn(r)
	})
}

// TestWentBack puts back a whole store as it was.
func TestWentBack(t *testing.T) {
	inner, s := begun(t)
	seen := NewSeen([]string{"first"})
	shared := OpenShared(&followed{inner, seen}, kvtest.Secret("key"), []string{"first"}, seen)
	recall := func() error { return shared.Recall(t.Context(), func(kv.Reader) error { return nil }) }
	old := rootIn(t, inner)
	put(t, s, "first", "revoked", "1")
	if err := recall(); err != nil {
		t.Fatal(err)
	}
	remove(t, inner, "first", "revoked")
	if err := recall(); !errors.Is(err, kv.ErrForged) {
		t.Errorf("without the record: %v", err)
	}
	put(t, inner, kv.Settings, rootKey, string(old))
	if err := recall(); !errors.Is(err, kv.ErrForged) {
		t.Errorf("all as before: %v", err)
	}
}

// rootIn returns the record.
func rootIn(t *testing.T, s kv.Store) (b []byte) {
	t.Helper()
	err := s.View(t.Context(), func(r kv.Reader) (err error) { b, err = r.Get(kv.Settings, []byte(rootKey)); return err })
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWentOn has a store put back, and then changed by those with the key until it is as new
// as the one that was seen, or newer.
func TestWentOn(t *testing.T) {
	for changes := range 3 {
		t.Run(fmt.Sprint(changes), func(t *testing.T) {
			inner, s := begun(t)
			seen := NewSeen([]string{"first"})
			shared := OpenShared(&followed{inner, seen}, kvtest.Secret("key"), []string{"first"}, seen)
			before := rootIn(t, inner)
			put(t, s, "first", "revoked", "1")
			if err := shared.Recall(t.Context(), func(kv.Reader) error { return nil }); err != nil {
				t.Fatal(err)
			}
			newest := rootIn(t, inner)
			remove(t, inner, "first", "revoked")
			put(t, inner, kv.Settings, rootKey, string(before))
			seen.Changed(kv.Settings, []byte(rootKey), newest, before)
			for n := range changes {
				put(t, s, "first", "innocent", fmt.Sprint(n))
			}
			if err := shared.Recall(t.Context(), func(kv.Reader) error { return nil }); !errors.Is(err, kv.ErrForged) {
				t.Errorf("after %d changes: %v", changes, err)
			}
		})
	}
}

// TestForked is TestWentOn for one who did not watch meanwhile: it shows for as long as the
// store is not newer.
func TestForked(t *testing.T) {
	inner, s := begun(t)
	seen := NewSeen([]string{"first"})
	shared := OpenShared(&followed{inner, seen}, kvtest.Secret("key"), []string{"first"}, seen)
	before := rootIn(t, inner)
	put(t, s, "first", "revoked", "1")
	if err := shared.Recall(t.Context(), func(kv.Reader) error { return nil }); err != nil {
		t.Fatal(err)
	}
	remove(t, inner, "first", "revoked")
	put(t, inner, kv.Settings, rootKey, string(before))
	put(t, s, "first", "innocent", "1")
	if err := shared.Recall(t.Context(), func(kv.Reader) error { return nil }); !errors.Is(err, kv.ErrForged) {
		t.Errorf("error %v", err)
	}
}

// TestFormer puts back a store that was in the same place before this one, and had more
// changes.
func TestFormer(t *testing.T) {
	former, old := begun(t)
	for n := range 5 {
		put(t, old, "first", "a", fmt.Sprint(n))
	}
	inner, _ := begun(t)
	seen := NewSeen([]string{"first"})
	shared := OpenShared(&followed{inner, seen}, kvtest.Secret("key"), []string{"first"}, seen)
	if err := shared.Recall(t.Context(), func(kv.Reader) error { return nil }); err != nil {
		t.Fatal(err)
	}
	put(t, inner, "first", "a", "4")
	put(t, inner, kv.Settings, rootKey, string(rootIn(t, former)))
	if err := shared.Recall(t.Context(), func(kv.Reader) error { return nil }); !errors.Is(err, kv.ErrForged) {
		t.Errorf("error %v", err)
	}
}

func TestSum(t *testing.T) {
	var one, other sum
	one.add("t", []byte("a"), []byte("1"))
	one.add("t", []byte("b"), []byte("2"))
	other.add("t", []byte("b"), []byte("2"))
	if one == other {
		t.Error("different sets are equal")
	}
	other.add("t", []byte("a"), []byte("1"))
	if one != other || one != decodeSum(one.encode()) {
		t.Error("one set has two sums")
	}
	one.remove("t", []byte("a"), []byte("1"))
	one.remove("t", []byte("b"), []byte("2"))
	if one != (sum{}) {
		t.Error("nothing is left, and the sum is not zero")
	}
	for _, expand := range []hasher{hash, hashFast} {
		hash := func(table, key, value string) [sumSize]byte {
			return *expand(&room{}, table, []byte(key), []byte(value))
		}
		if hash("t", "ab", "c") == hash("t", "a", "bc") || hash("ta", "b", "") == hash("t", "ab", "") {
			t.Error("records that differ have one hash")
		}
	}
}

// TestNumbers compares sums with those of numbers of their own.
func TestNumbers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var s sum
	var want [sumSize / 2]uint16
	for n := range 100 {
		var h [sumSize]byte
		for i := range h {
			h[i] = byte(random.Uint32())
		}
		for i := range want {
			if number := binary.BigEndian.Uint16(h[2*i:]); n%3 == 0 {
				want[i] -= number
			} else {
				want[i] += number
			}
		}
		if n%3 == 0 {
			s.minus(&h)
		} else {
			s.plus(&h)
		}
	}
	doubled := s
	doubled.plusSum(&s)
	got, twice := s.encode(), doubled.encode()
	for i, number := range want {
		if binary.BigEndian.Uint16(got[2*i:]) != number || binary.BigEndian.Uint16(twice[2*i:]) != 2*number {
			t.Fatalf("number %d is %x, and twice that %x; want %x", i, got[2*i:2*i+2], twice[2*i:2*i+2], number)
		}
	}
	if decodeSum(got) != s {
		t.Error("a sum has two forms")
	}
}

func BenchmarkHash(b *testing.B)     { benchmarkHash(b, hash) }
func BenchmarkHashFast(b *testing.B) { benchmarkHash(b, hashFast) }

func benchmarkHash(b *testing.B, hash hasher) {
	in, value := &room{}, make([]byte, 16)
	for b.Loop() {
		hash(in, "ids", []byte("device-0001"), value)
	}
}

func BenchmarkSum(b *testing.B) {
	var s sum
	value := make([]byte, 500)
	for b.Loop() {
		s.add("entities", []byte("device-0001"), value)
	}
}

// TestBulk changes records that are not in the sum, whose digests are.
func TestBulk(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) kv.Store {
		_, s := begun(t)
		return Bulk{"large", "digests"}.Over(s)
	})
	for name, forge := range map[string]func(*testing.T, kv.Store){
		"changed":  func(t *testing.T, s kv.Store) { put(t, s, "second", "a", "3") },
		"put back": func(t *testing.T, s kv.Store) { put(t, s, "second", "a", "1") },
		"removed":  func(t *testing.T, s kv.Store) { remove(t, s, "second", "a") },
		"moved":    func(t *testing.T, s kv.Store) { remove(t, s, "second", "a"); put(t, s, "second", "b", "2") },
	} {
		inner, s := begun(t)
		large := Bulk{"second", "first"}.Over(s)
		put(t, large, "second", "a", "1")
		put(t, large, "second", "a", "2")
		put(t, large, "second", "b", "gone")
		remove(t, large, "second", "b")
		forge(t, inner)
		errGet := large.View(t.Context(), func(r kv.Reader) error {
			_, err := r.Get("second", []byte("a"))
			return err
		})
		errRange := large.View(t.Context(), func(r kv.Reader) error {
			_, err := r.Range("second", nil, nil, 10)
			return err
		})
		if !errors.Is(errGet, kv.ErrForged) || !errors.Is(errRange, kv.ErrForged) {
			t.Errorf("%s: %v, %v", name, errGet, errRange)
		}
		errAdded := large.View(t.Context(), func(r kv.Reader) error {
			_, err := r.Get("second", []byte("x"))
			return err
		})
		if errAdded != nil {
			t.Errorf("%s: one that never was: %v", name, errAdded)
		}
	}
}

// A losingKey is one whose first version is lost at some point.
type losingKey struct {
	first, second Key
	lost          bool
}

func (k *losingKey) Tag(data []byte) ([]byte, error) {
	if k.lost {
		return k.second.Tag(data)
	}
	return k.first.Tag(data)
}

func (k *losingKey) Check(data, tag []byte) (bool, error) {
	if fits, err := k.second.Check(data, tag); fits || err != nil || k.lost {
		return fits, err
	}
	return k.first.Check(data, tag)
}
