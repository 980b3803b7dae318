package cli

import (
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// half FILE PATTERN [empty] has the server read a file again that is empty, half written, and
// something else; with empty only the first. See refused.
func half(ts *testscript.TestScript, _ bool, args []string) {
	whole := ts.ReadFile(args[0])
	texts := []string{"", whole[:len(whole)/2], "something else\n"}
	if len(args) > 2 {
		texts = texts[:1]
	}
	for _, text := range texts {
		refuse(ts, args[0], text, args[1])
	}
}

// refused FILE OTHER PATTERN has the server read the content of another file in place of one.
// The reload must fail with one line that matches, and doctor must say the same.
func refused(ts *testscript.TestScript, _ bool, args []string) {
	refuse(ts, args[0], ts.ReadFile(args[1]), args[2])
}

func refuse(ts *testscript.TestScript, file, text, pattern string) {
	path := ts.MkAbs(file)
	info, err := os.Stat(path)
	ts.Check(err)
	whole := ts.ReadFile(file)
	ts.Check(os.WriteFile(path, []byte(text), info.Mode()))
	if ts.Exec("msl-hsm", "admin", "reload") == nil {
		ts.Fatalf("%s is read with %.20q", file, text)
	}
	_, why, _ := strings.Cut(strings.TrimSpace(ts.ReadFile("stderr")), "msl-hsm: ")
	if strings.Contains(why, "\n") {
		ts.Fatalf("more than a line: %s", why)
	}
	if !regexp.MustCompile(pattern).MatchString(why) {
		ts.Fatalf("%s with %.20q: %s, want %s", file, text, why, pattern)
	}
	_ = ts.Exec("msl-hsm", "doctor")
	why = strings.TrimPrefix(why, "running server: ")
	if lines := strings.Split(ts.ReadFile("stdout"), "\n"); !slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, why) }) {
		ts.Fatalf("doctor does not say %s", why)
	}
	ts.Check(os.WriteFile(path, []byte(whole), info.Mode()))
}
