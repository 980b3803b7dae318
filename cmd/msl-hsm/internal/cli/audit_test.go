package cli

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// recorded FILE EVENT N waits until an audit log has that event so often.
func recorded(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		ts.Check(err)
		if strings.Count(string(text), `"event":"`+args[1]+`"`) >= n {
			return
		}
	}
	ts.Fatalf("%s has not %s times %s", args[0], args[2], args[1])
}
