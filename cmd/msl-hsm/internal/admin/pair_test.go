package admin

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// TestCompare judges keys by those with which a state was used.
func TestCompare(t *testing.T) {
	pair := func(versions map[uint32]string) state.Pair {
		p := state.Pair{}
		for number, print := range versions {
			p[number] = []byte(print)
		}
		return p
	}
	type of = map[uint32]string
	for name, test := range map[string]struct {
		own, known of
		warning    string
		other      bool
	}{
		"never used":                  {own: of{1: "a"}},
		"never used, and no keys":     {},
		"the same":                    {own: of{1: "a", 2: "b"}, known: of{1: "a", 2: "b"}},
		"an older version went":       {own: of{2: "b"}, known: of{1: "a", 2: "b"}},
		"an older version is unknown": {own: of{1: "a", 2: "b"}, known: of{2: "b"}},
		"other keys":                  {own: of{1: "x"}, known: of{1: "a"}, other: true},
		"other keys, more of them":    {own: of{1: "x", 2: "y"}, known: of{1: "a"}, other: true},
		"other keys, fewer of them":   {own: of{1: "x"}, known: of{1: "a", 2: "b"}, other: true},
		"no keys":                     {known: of{1: "a"}, other: true},
		"a newer version":             {own: of{1: "a", 2: "b"}, known: of{1: "a"}, warning: "version 2 of mac was made since"},
		"a lost version":              {own: of{1: "a"}, known: of{1: "a", 2: "b"}, warning: "the newest version of mac is 1, but the state was used with version 2"},
		"a version made again":        {own: of{1: "a", 2: "x"}, known: of{1: "a", 2: "b"}, warning: "made again"},
		"none in common":              {own: of{3: "c"}, known: of{2: "b"}, warning: "is not known"},
	} {
		warning, err := compare(pair(test.own), pair(test.known), "mac")
		if errors.Is(err, ErrOtherKeys) != test.other || !test.other && err != nil {
			t.Errorf("%s: error %v", name, err)
		}
		if (warning == "") != (test.warning == "") || !strings.Contains(warning, test.warning) {
			t.Errorf("%s: warning %q, want %q", name, warning, test.warning)
		}
	}
}

// TestInterrupted has a rotation that was announced, and interrupted when its keys were made: the
// state knows of them, and is not an older copy.
func TestInterrupted(t *testing.T) {
	store := soft.New()
	defer store.Close()
	c := config.Default()
	create := func() {
		t.Helper()
		if _, err := store.Create(issuerMAC(c), keystore.HMACSHA256); err != nil {
			t.Fatal(err)
		}
	}
	create()
	known, err := prints(store, issuerMAC(c))
	if err != nil {
		t.Fatal(err)
	}
	create()
	for made, warns := range map[uint32]bool{0: true, 1: true, 2: false} {
		if warning, err := ComparePair(c, Used{known, made}, store); err != nil || (warning != "") != warns {
			t.Errorf("version %d was made for the state: %q, %v", made, warning, err)
		}
	}
	if _, err := ComparePair(c, Used{state.Pair{1: []byte("other")}, 2}, store); !errors.Is(err, ErrOtherKeys) {
		t.Errorf("other keys: %v", err)
	}
}

// TestExplained checks a state that is not authentic: the error says whether the version of the
// key is gone that authenticates it, or somebody else wrote it.
func TestExplained(t *testing.T) {
	store := soft.New()
	defer store.Close()
	c := config.Default()
	for range 2 {
		if _, err := store.Create(issuerMAC(c), keystore.HMACSHA256); err != nil {
			t.Fatal(err)
		}
	}
	own, err := prints(store, issuerMAC(c))
	if err != nil {
		t.Fatal(err)
	}
	otherKey := fmt.Errorf("forged: %w", authkv.ErrOtherKey)
	for name, test := range map[string]struct {
		known  state.Pair
		forged error
		want   string
	}{
		"a lost version":               {state.Pair{1: own[1], 2: own[2], 3: []byte("lost")}, otherKey, "the version of the key that authenticates it is missing: the newest version of msl-issuer-mac is 2, but the state was used with version 3"},
		"a lost version, and a forger": {state.Pair{1: own[1], 3: []byte("lost")}, kv.ErrForged, kv.ErrForged.Error()},
		"all are there":                {state.Pair{1: own[1], 2: own[2]}, otherKey, otherKey.Error()},
		"a newer version is there":     {state.Pair{1: own[1]}, otherKey, otherKey.Error()},
		"never used":                   {nil, otherKey, otherKey.Error()},
		"other keys":                   {state.Pair{1: []byte("x")}, otherKey, "the state it belongs to other keys"},
	} {
		err := explained(c, "it", store, test.known, "do something", test.forged)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
