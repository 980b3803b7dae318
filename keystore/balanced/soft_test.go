package balanced_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/balanced"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// cheap are key files that take no time to open.
var cheap = soft.Config{Cost: soft.Cost{Time: 1, Memory: 8, Threads: 1}, CheapForTests: true}

// softTokens make a key file, and open it as two tokens: their keys are the same.
func softTokens(t *testing.T) (path string, one, two balanced.Token) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "keys")
	s, err := cheap.Create(path, []byte("pass"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open := func() (keystore.Store, error) { return cheap.Open(path, []byte("pass")) }
	return path, balanced.Token{Name: "one", Open: open}, balanced.Token{Name: "two", Open: open}
}

// open opens a store that goes with the test.
func open(t testing.TB, c balanced.Config) *balanced.Store {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s, err := balanced.Open(c)
	for try := 1; try < 20 && c.Limit > 0 && errors.Is(err, keystore.ErrUnavailable); try++ {
		s, err = balanced.Open(c) // a busy machine lets no token answer within the limit of a test
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// soak skips what takes too long for every day.
func soak(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("takes long; MSL_SOAK=1 runs it")
	}
}

func TestSoft(t *testing.T) {
	soak(t)
	_, one, two := softTokens(t)
	keystoretest.TestStore(t, func(t *testing.T) keystore.Store {
		return open(t, balanced.Config{Tokens: []balanced.Token{one, two}})
	})
}

// TestQueueEnds has operations one after the other: each has left the queue of its token when
// it returns, or the next one would be done elsewhere for no reason.
func TestQueueEnds(t *testing.T) {
	_, one, two := softTokens(t)
	s := open(t, balanced.Config{Tokens: []balanced.Token{one, two}})
	for range 2000 {
		k, err := s.Generate(keystore.HMACSHA256)
		if err == nil {
			err = k.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range s.Conditions() {
			if c.Queue != 0 {
				t.Fatalf("%d operations are under way on token %s after all have returned", c.Queue, c.Name)
			}
		}
	}
}
