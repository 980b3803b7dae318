package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
)

// forEachReader PATH runs every command that must find a state file on one that
// is not there.
func forEachReader(ts *testscript.TestScript, _ bool, args []string) {
	for _, command := range []string{
		"entity list", "entity show x", "entity remove x", "entity revoke x", "entity unrevoke x",
		"user list", "user remove x", "user revoke x", "user unrevoke x",
		"state check", "state prune", "state compact", "state backup x.bak", "serve --listen 127.0.0.1:0",
	} {
		exits(ts, false, append(append([]string{"2", "msl-hsm"}, strings.Fields(command)...), "--state", args[0]))
		text := ts.ReadFile("stderr")
		if !strings.Contains(text, "no state file "+args[0]) || !strings.Contains(text, "msl-hsm state init --state '"+args[0]+"'") {
			ts.Fatalf("%s: %s", command, text)
		}
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			ts.Fatalf("%s made the file", command)
		}
	}
}

// advice PATTERN finds a command in the last error, as a shell would, and runs it.
func followAdvice(ts *testscript.TestScript, _ bool, args []string) {
	found := regexp.MustCompile(args[0]).FindStringSubmatch(ts.ReadFile("stderr"))
	if found == nil {
		ts.Fatalf("no such advice")
	}
	ts.Check(ts.Exec("sh", "-c", found[1]))
}

// empty FILE writes a file with nothing in it.
func empty(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), nil, 0o600))
	ts.Check(os.Chmod(ts.MkAbs(args[0]), 0o600))
}

// cut FILE BYTES cuts a file off.
func cut(ts *testscript.TestScript, _ bool, args []string) {
	var size int64
	_, err := fmt.Sscan(args[1], &size)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), size))
}

// mode FILE OCTAL checks the mode of a file.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("mode %s, want %s", got, args[1])
	}
}

// leftover PATTERN fails if files have such names.
func leftover(ts *testscript.TestScript, _ bool, args []string) {
	found, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(found) > 0 {
		ts.Fatalf("left over: %v", found)
	}
}

func TestQuoted(t *testing.T) {
	for word, want := range map[string]string{
		"/var/lib/msl-hsm/server.db": "/var/lib/msl-hsm/server.db", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'", "": "",
	} {
		if got := admin.Quoted(word); got != want {
			t.Errorf("%q becomes %s, want %s", word, got, want)
		}
	}
}
