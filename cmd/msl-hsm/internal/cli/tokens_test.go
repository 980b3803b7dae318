package cli

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
)

// clone DIR LABEL OTHER copies a SoftHSM token of a directory.
func clone(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: clone DIR LABEL OTHER")
	}
	ts.Check(cloneToken(ts.MkAbs(args[0]), args[1], args[2]))
}

// withdraw DIR LABEL takes a SoftHSM token away, and with ! puts it back.
func withdraw(ts *testscript.TestScript, back bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] withdraw DIR LABEL")
	}
	here, away := ts.MkAbs(filepath.Join(args[0], "tokens")), ts.MkAbs(filepath.Join(args[0], "away"))
	if back {
		here, away = away, here
	}
	ts.Check(os.MkdirAll(away, 0o700))
	all, err := filepath.Glob(filepath.Join(here, "*", "token.object"))
	ts.Check(err)
	for _, path := range all {
		object, err := os.ReadFile(path)
		ts.Check(err)
		if dir := filepath.Dir(path); bytes.Contains(object, []byte(args[1]+" ")) {
			ts.Check(os.Rename(dir, filepath.Join(away, filepath.Base(dir))))
		}
	}
}
