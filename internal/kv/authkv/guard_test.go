package authkv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
)

func guarded(t *testing.T) (*kvtest.Memory, kv.Store) {
	t.Helper()
	inner := &kvtest.Memory{}
	g := Guard{Key: func() (Key, Mark, error) { return kvtest.Secret("key"), nil, nil }, Trust: Vouch}
	s, verdict, err := g.Over(t.Context(), inner, []string{"first"}, nil)
	if err != nil || !verdict.New {
		t.Fatalf("%+v, %v", verdict, err)
	}
	return inner, s
}

func TestGuardedStore(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("TestStore asks the same of the store without a guard; this is for MSL_SOAK=1")
	}
	kvtest.Run(t, func(t *testing.T) kv.Store {
		_, s := guarded(t)
		return s
	})
}

// TestReplaced puts another root into a store that is open: an earlier one, which is as
// authentic as it was, that of another store, and none.
func TestReplaced(t *testing.T) {
	for name, replace := range map[string]func(old []byte) []byte{
		"that of before": func(old []byte) []byte { return old },
		"another": func([]byte) []byte {
			b, err := newRoot(sum{}).encode(soleKey{kvtest.Secret("key")})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		"none": func([]byte) []byte { return []byte("x") },
	} {
		inner, s := guarded(t)
		put(t, s, "first", "a", "1")
		old := rootOf(t, inner)
		put(t, s, "first", "a", "2")
		put(t, inner, kv.Settings, rootKey, string(replace(old)))
		if err := s.View(t.Context(), func(kv.Reader) error { return nil }); !errors.Is(err, kv.ErrForged) {
			t.Errorf("%s: View: %v, want ErrForged", name, err)
		}
		read := func(r kv.Reader) error {
			if _, err := r.Get("first", []byte("a")); err == nil {
				t.Errorf("%s: Get returned a record", name)
			}
			return nil // whatever it says
		}
		if err := s.View(t.Context(), read); !errors.Is(err, kv.ErrForged) {
			t.Errorf("%s: View that reads a record: %v, want ErrForged", name, err)
		}
		err := s.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("first", []byte("a"), []byte("3")) })
		if !errors.Is(err, kv.ErrForged) {
			t.Errorf("%s: Update: %v, want ErrForged", name, err)
		}
	}
}

// A committing is a store of which every commit asks for the root.
type committing struct {
	*kvtest.Memory
	finish func(kv.Tx) error
}

func (c *committing) OnCommit(fn func(kv.Tx) error) { c.finish = fn }

func (c *committing) Update(ctx context.Context, fn func(kv.Tx) error) error {
	return c.Memory.Update(ctx, func(tx kv.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return c.finish(tx)
	})
}

// TestReplacedApart changes a table that is not in the sum, in a store of which the root was
// replaced: reading it asks nothing, and writing it does.
func TestReplacedApart(t *testing.T) {
	inner := &committing{&kvtest.Memory{}, func(kv.Tx) error { return nil }}
	g := Guard{Key: func() (Key, Mark, error) { return kvtest.Secret("key"), nil, nil }, Trust: Vouch}
	s, _, err := g.Over(t.Context(), inner, []string{"first"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "first", "a", "1")
	old := rootOf(t, inner)
	put(t, s, "first", "a", "2")
	put(t, s, "apart", "a", "1")
	put(t, inner.Memory, kv.Settings, rootKey, string(old))
	err = s.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("apart", []byte("a"), []byte("2")) })
	if !errors.Is(err, kv.ErrForged) {
		t.Errorf("Update: %v, want ErrForged", err)
	}
	err = s.View(t.Context(), func(r kv.Reader) error {
		if b, err := r.Get("apart", []byte("a")); string(b) != "1" {
			t.Errorf("apart is %q, %v", b, err)
		}
		_, err := r.Range("first", nil, nil, 1)
		return err
	})
	if !errors.Is(err, kv.ErrForged) {
		t.Errorf("View: %v, want ErrForged", err)
	}
}

func rootOf(t *testing.T, s kv.Store) (b []byte) {
	t.Helper()
	err := s.View(context.Background(), func(r kv.Reader) (err error) {
		b, err = r.Get(kv.Settings, []byte(rootKey))
		b = append([]byte(nil), b...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReadWhileWritten lets readers see earlier moments while roots follow each other.
func TestReadWhileWritten(t *testing.T) {
	_, s := guarded(t)
	var wait sync.WaitGroup
	for n := range 3 {
		wait.Go(func() {
			for i := range 100 {
				put(t, s, "first", fmt.Sprint(n, i), "x")
			}
		})
		wait.Go(func() {
			for range 300 {
				if err := s.View(t.Context(), func(kv.Reader) error { return nil }); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	if err := s.(*Store).Verify(t.Context()); err != nil {
		t.Error(err)
	}
}
