package cli

import (
	"os"
	"os/exec"
	"slices"
	"strings"
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

// TestShells has the shells that are installed read their scripts, and fish, which tells without
// a terminal, complete with it.
func TestShells(t *testing.T) {
	skipWithRace(t)
	for shell, c := range map[string]struct{ ask, want string }{
		"bash": {"source ./script && declare -F __start_msl-hsm", "__start_msl-hsm"},
		"zsh":  {"autoload -U compinit && compinit -u -D && source ./script && print $_comps[msl-hsm]", "_msl-hsm"},
		"fish": {"source ./script && complete -C 'msl-hsm serve --log-format '", "auto\njson\ntext"},
	} {
		if _, err := exec.LookPath(shell); err != nil {
			t.Logf("%s is not installed", shell)
			continue
		}
		dir := t.TempDir()
		var script, complaints strings.Builder
		if code := runCheaply([]string{"completion", shell}, strings.NewReader(""), &script, &complaints); code != 0 {
			t.Fatal(complaints.String())
		}
		write(t, dir, "script", script.String())
		asked := exec.Command(shell, "-c", c.ask)
		asked.Dir, asked.Env = dir, append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
		if said, err := asked.CombinedOutput(); err != nil || strings.TrimSpace(string(said)) != c.want {
			t.Errorf("%s: %v: %s", shell, err, said)
		}
	}
}
