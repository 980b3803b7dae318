package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A cutVerb changes the state. done is what list shows then, and again what the verb may say when
// it is repeated although it was done.
type cutVerb struct{ verb, list, done, again string }

// cutVerbs are about names that end in N.
var cutVerbs = []cutVerb{
	{"entity add camera-N --none", "entity list", `camera-N +NONE.*registered`, "exists already"},
	{"entity remove camera-N", "entity list", `camera-N .*removed`, "not registered"},
	{"entity revoke thief-N", "entity list", `thief-N .*revoked`, ""},
	{"user add ada-N --password-source file:PASSWORD", "user list", `ada-N +registered`, "exists already"},
	{"user password ada-N --password-source file:PASSWORD", "user list", `ada-N +registered`, ""},
}

// about returns the verb for the nth names.
func (v cutVerb) about(n int) cutVerb {
	name := func(text string) string { return strings.ReplaceAll(text, "-N", fmt.Sprint("-", n)) }
	return cutVerb{name(v.verb), v.list, name(v.done), v.again}
}

// A cutBench is the state of a server. Verbs that change it are cut off.
type cutBench struct {
	*testing.T
	dir, config string
}

func newCutBench(t *testing.T, config string) cutBench {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "c.yaml", strings.ReplaceAll(config, "DIR", dir))
	write(t, dir, "password", "correct horse")
	b := cutBench{t, dir, filepath.Join(dir, "c.yaml")}
	b.must("key create --set server")
	return b
}

// run runs a verb in this process.
func (b cutBench) run(verb string) (code int, out string) {
	var o bytes.Buffer
	code = runCheaply(b.words(verb), strings.NewReader(""), &o, &o)
	return code, o.String()
}

func (b cutBench) words(verb string) []string {
	args := append(strings.Fields(verb), "--config", b.config)
	for i, arg := range args {
		args[i] = strings.ReplaceAll(arg, "PASSWORD", filepath.Join(b.dir, "password"))
	}
	return args
}

func (b cutBench) must(verb string) string {
	b.Helper()
	code, out := b.run(verb)
	if code != 0 {
		b.Fatalf("%s: %s", verb, out)
	}
	return out
}

// cut has a verb end early: nothing is done by half, and it can be repeated.
func (b cutBench) cut(v cutVerb, early func(args []string)) {
	b.Helper()
	verb, done := v.verb, regexp.MustCompile(v.done)
	before := b.must(v.list)
	early(b.words(verb))
	after := b.must(v.list)
	if after != before && !done.MatchString(after) {
		b.Errorf("%s was done by half: %s", verb, after)
	}
	if code, out := b.run(verb); code != 0 && !(done.MatchString(after) && v.again != "" && strings.Contains(out, v.again)) {
		b.Errorf("%s again: %s", verb, out)
	}
	if after = b.must(v.list); !done.MatchString(after) {
		b.Errorf("%s was not done: %s", verb, after)
	}
	if report := b.must("state check"); !strings.Contains(report, "authentic") || strings.Contains(report, "not authenticated") {
		b.Errorf("after %s: %s", verb, report)
	}
	if files, err := os.ReadDir(b.dir); err != nil || len(files) > 4 { // the configuration, password, keys and state
		b.Errorf("%s left %v: %v", verb, files, err)
	}
}

// TestVerbsOnFullDisk has verbs find no room for what they write: they fail in a line, change
// nothing, and can be repeated.
func TestVerbsOnFullDisk(t *testing.T) {
	skipWithRace(t)
	t.Parallel()
	b := newCutBench(t, "keystore: {uri: \"soft:DIR/keys\", pin: \"file:DIR/password\"}\nserver: {state: DIR/state.db}\n")
	rooms := []int{0, 8, 16} // in blocks of 512 bytes
	rounds := 1
	if os.Getenv("MSL_SOAK") != "" {
		rounds = len(rooms)
	}
	for round := range rounds {
		for i, v := range cutVerbs {
			limit := fmt.Sprintf(`ulimit -f %d; exec msl-hsm "$@"`, rooms[(i+round)%len(rooms)])
			b.cut(v.about(round), func(args []string) {
				out, err := exec.Command("sh", append([]string{"-c", limit, "sh"}, args...)...).CombinedOutput()
				if err == nil || bytes.Count(out, []byte("\n")) != 1 {
					t.Errorf("%v, %s: %v: %s", args, limit, err, out)
				}
			})
		}
	}
}
