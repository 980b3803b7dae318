package balanced_test

import (
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/balanced"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// A thorough token takes long to look a key up, since it tries each version, and to destroy one, since
// another program changes its keys.
type thorough struct {
	*soft.Store
	takes time.Duration
}

func (s thorough) Lookup(label string) ([]keystore.Version, error) {
	if label == "mac" {
		time.Sleep(s.takes)
	}
	return s.Store.Lookup(label)
}

func (s thorough) Destroy(string, uint32) error { // nothing: both tokens are one file
	time.Sleep(s.takes)
	return nil
}

// TestThorough looks up and destroys a key on tokens that take longer for it than an operation may.
func TestThorough(t *testing.T) {
	t.Parallel()
	const limit = 250 * time.Millisecond
	path, one, two := softTokens(t)
	create(t, path, "mac", keystore.HMACSHA256)
	for _, token := range []*balanced.Token{&one, &two} {
		plain := token.Open
		token.Open = func() (keystore.Store, error) {
			s, err := plain()
			if err != nil {
				return nil, err
			}
			return thorough{s.(*soft.Store), 3 * limit / 2}, nil
		}
	}
	s := open(t, balanced.Config{Tokens: []balanced.Token{one, two}, Limit: limit})
	if _, err := s.Lookup("mac"); err != nil {
		t.Error(err)
	}
	if err := s.Destroy("mac", 1); err != nil {
		t.Error(err)
	}
}
