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

// TestReplaced puts another root into a store that is open: one of before, which is as
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
		err := s.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("first", []byte("a"), []byte("3")) })
		if !errors.Is(err, kv.ErrForged) {
			t.Errorf("%s: Update: %v, want ErrForged", name, err)
		}
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

// TestReadWhileWritten has readers see moments of before while roots follow each other.
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
