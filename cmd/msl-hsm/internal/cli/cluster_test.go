package cli

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestClusterScript runs scripts/cluster as a reader of the documentation does.
func TestClusterScript(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("takes a minute; MSL_SOAK=1 runs it")
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "../../../../scripts/cluster")
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) } // it ends what it started
	c.WaitDelay = time.Minute
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil || !strings.HasSuffix(out.String(), "\ndone\n") {
		t.Errorf("%v: %s", err, out.String())
	}
}
