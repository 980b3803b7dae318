package cli

import (
	"slices"
	"testing"
)

// Strangers choose names, and a shell takes up what it completes as if it had been typed.
func TestNamesForShells(t *testing.T) {
	harmless := []string{"camera-1", "ada@example.com", "a_b.c/d:e,f+g%h", "küche", "4k", "a=b"}
	for _, name := range harmless {
		if got := matching([]string{name}, ""); !slices.Equal(got, []string{name}) {
			t.Errorf("%q is completed to %q", name, got)
		}
	}
	for _, name := range []string{
		"", "$(id)", "$(id)2", "`id`", "a;id", "a b", "a|b", "a&b", "a>b", "a<b", "a\nb", "a\tb", "a\x1b[2J", "a\x7f", "~root", "=id", "-rf", "--yes",
		"a*", "a?", "[a]", "{a,b}", "!!", "#a", "a'b", `a"b`, `a\b`, "a^b", "(a)", "a\u0085b", "a\u202eb", "a\u00a0b", "a\xffb",
	} {
		if got := matching([]string{name}, ""); len(got) > 0 {
			t.Errorf("%q is completed", name)
		}
	}
}
