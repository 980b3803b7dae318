package admin

import (
	"errors"
	"strings"
	"testing"

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
		"a lost version":              {own: of{1: "a"}, known: of{1: "a", 2: "b"}, warning: "the newest version of mac is 1, and the state was used with version 2"},
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
