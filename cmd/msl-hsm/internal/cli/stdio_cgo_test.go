//go:build cgo

package cli

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// TestClosedStreams starts commands without standard input or output: nothing is not an empty
// message, and output that nobody can read is not a success.
func TestClosedStreams(t *testing.T) {
	skipWithRace(t)
	t.Parallel()
	for _, c := range []struct{ shell, says string }{
		{"msl-hsm version >&-", "write /dev/stdout: bad file descriptor"},
		{"msl-hsm help >&-", "write /dev/stdout: bad file descriptor"},
		{"msl-hsm inspect - <&-", "read /dev/stdin: bad file descriptor"},
	} {
		var said bytes.Buffer
		run := exec.Command("sh", "-c", c.shell)
		run.Stderr = &said
		if code := codeOf(t, run.Run()); code != exit.Failure || !strings.Contains(said.String(), c.says) {
			t.Errorf("%s: exit code %d, %q", c.shell, code, &said)
		}
	}
	if out, err := exec.Command("sh", "-c", "msl-hsm version <&- 2>&-").Output(); err != nil || len(out) == 0 {
		t.Errorf("a command that needs neither: %v, %q", err, out)
	}
}
