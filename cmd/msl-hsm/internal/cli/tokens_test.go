package cli

import (
	"bytes"
	"errors"
	"io/fs"
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
	ts.Check(moveTokens(here, away, args[1]))
}

// moveTokens moves the directories of the SoftHSM tokens with a label.
func moveTokens(from, to, label string) error {
	all, err := filepath.Glob(filepath.Join(from, "*", "token.object"))
	if err != nil {
		return err
	}
	for _, path := range all {
		object, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another test's, which has ended
		}
		if dir := filepath.Dir(path); err == nil && bytes.Contains(object, []byte(label+" ")) {
			err = os.Rename(dir, filepath.Join(to, filepath.Base(dir)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
