package balanced_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/balanced"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// kinds has an algorithm of each kind of key that can be asked something.
var kinds = []keystore.Algorithm{
	keystore.AES128CBC, keystore.HMACSHA256, keystore.AESCMAC128, keystore.AESWrap128, keystore.ECDSAP256,
}

// TestDifferent has two tokens with the same labels, versions and algorithms, and one of
// the keys is another one.
func TestDifferent(t *testing.T) {
	path, one, two := softTokens(t)
	for _, a := range kinds {
		t.Run(a.String(), func(t *testing.T) {
			for range 2 {
				create(t, path, a.String(), a)
			}
			other := two
			other.Open = func() (keystore.Store, error) {
				s, err := cheap.Open(path, []byte("pass"))
				return impostor{s, a.String()}, err
			}
			s := open(t, balanced.Config{Tokens: []balanced.Token{one, two}})
			if ring, err := s.Lookup(a.String()); err != nil || len(ring) != 2 {
				t.Errorf("the same key: %v, %v", ring, err)
			}
			s = open(t, balanced.Config{Tokens: []balanced.Token{one, other}})
			_, err := s.Lookup(a.String())
			if want := fmt.Sprintf("key %q version 1 of token two is not the same key as that of token one", a); !errors.Is(err, balanced.ErrDifferent) || !strings.Contains(err.Error(), want) {
				t.Errorf("another key: %v, want %s", err, want)
			}
		})
	}
}

func create(t *testing.T, path, label string, a keystore.Algorithm) {
	t.Helper()
	s, err := cheap.Open(path, []byte("pass"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Create(label, a); err != nil {
		t.Fatal(err)
	}
}

// An impostor has the second version of a key instead of the first.
type impostor struct {
	*soft.Store
	label string
}

func (i impostor) Lookup(label string) ([]keystore.Version, error) {
	ring, err := i.Store.Lookup(label)
	if label == i.label && len(ring) == 2 {
		ring[1].Key = ring[0].Key
	}
	return ring, err
}

// TestSealingKeys has two tokens with sealing keys of their own.
func TestSealingKeys(t *testing.T) {
	_, one, _ := softTokens(t)
	_, two, _ := softTokens(t)
	two.Name = "two"
	_, err := balanced.Open(balanced.Config{Tokens: []balanced.Token{one, two}})
	if want := "token two does not unseal what token one sealed"; !errors.Is(err, balanced.ErrDifferent) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestApart has a new version of a key on one token before it is on the other.
func TestApart(t *testing.T) {
	path, one, two := softTokens(t)
	create(t, path, "mac", keystore.HMACSHA256)
	s := open(t, balanced.Config{Tokens: []balanced.Token{one, two}})
	if _, err := s.Lookup("mac"); err != nil {
		t.Fatal(err)
	}
	create(t, path, "mac", keystore.HMACSHA256)
	create(t, path, "msl-seal-session", keystore.SealSession256)
	create(t, path, "msl-seal-mac", keystore.SealMAC256)
	n := 0
	s.Each(func(name string, store keystore.Store) { // the first has it, the other not yet
		if n++; n == 1 {
			if err := store.(keystore.Changing).Refresh(); err != nil {
				t.Fatal(err)
			}
		}
	})
	if ring, err := s.Lookup("mac"); err != nil || len(ring) != 1 {
		t.Errorf("before: %v, %v", ring, err)
	}
	if err := s.Refresh(); err != nil {
		t.Fatal(err)
	}
	if ring, err := s.Lookup("mac"); err != nil || len(ring) != 2 {
		t.Errorf("on both: %v, %v", ring, err)
	}
	sealsWith(t, s, 2)
	if err := s.SealWith("msl-seal-session", 1); err != nil {
		t.Fatal(err)
	}
	sealsWith(t, s, 1)
}

// sealsWith wants every token to seal with that version of the sealing key.
func sealsWith(t *testing.T, s *balanced.Store, want uint32) {
	t.Helper()
	for range 4 {
		k, err := s.Generate(keystore.AES128CBC)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := s.Seal(k, nil)
		if err := errors.Join(err, k.Close()); err != nil {
			t.Fatal(err)
		}
		if sealed, err := keystore.ParseSealed(blob); err != nil || sealed.KEKVersion != want {
			t.Errorf("sealed with version %d, %v, want %d", sealed.KEKVersion, err, want)
		}
	}
}

// TestRefusedPIN gives a PIN once.
func TestRefusedPIN(t *testing.T) {
	_, one, two := softTokens(t)
	given := 0
	two.Open = func() (keystore.Store, error) {
		given++
		return nil, fmt.Errorf("token two: %w", keystore.ErrPIN)
	}
	if _, err := balanced.Open(balanced.Config{Tokens: []balanced.Token{one, two}}); !errors.Is(err, keystore.ErrPIN) || given != 1 {
		t.Errorf("%v, and the PIN was given %d times", err, given)
	}
}
