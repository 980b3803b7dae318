package isolated

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestAlternates has child after child end as soon as it was started: the log has each reason once,
// and not each child.
func TestAlternates(t *testing.T) {
	var log strings.Builder
	s := newSupervisor(Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	for i := range 100 {
		s.tellLost("device lost", fmt.Errorf("its process has ended (signal %d)", 6+i%2))
		s.tellLost("the key store process cannot be replaced", errors.New("no token"))
		s.log(nil)
	}
	s.lost.Stop()
	if got := strings.Count(log.String(), "device back"); got != 3 {
		t.Errorf("%d times back", got)
	}
	if got := strings.Count(log.String(), "\n"); got != 3*2+3+3 {
		t.Errorf("%d lines:\n%s", got, &log)
	}
}
