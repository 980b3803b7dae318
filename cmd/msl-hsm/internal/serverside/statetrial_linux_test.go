package serverside

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/metrics"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// TestStateTrial has a file that cannot be written for longer than a failure counts, and a server
// that no message reaches meanwhile. It runs in a process of its own: go test has files, too, that
// the limit would keep from being written.
func TestStateTrial(t *testing.T) {
	if os.Getenv("STATE_TRIAL") != "" {
		synctest.Test(t, testStateTrial)
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestStateTrial$")
	c.Env = append(os.Environ(), "STATE_TRIAL=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func testStateTrial(t *testing.T) {
	file, err := bolt.CreateServer(filepath.Join(t.TempDir(), "server.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := &Service{base: &base{State: &admin.State{Server: file.Server, File: file}}}
	var log strings.Builder
	s.Metrics = metrics.New("", "")
	stateFor(s, slog.New(slog.NewTextHandler(&log, nil)))
	fail := func() { s.metered.note("renew", time.Now(), errors.New("no space left on device")) }
	fail()
	time.Sleep(recently)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 0, Max: before.Max})
	got := s.checkState(t.Context())
	unix.Setrlimit(unix.RLIMIT_FSIZE, &before)
	if got.Verdict != Failure || !strings.Contains(got.Detail, "server.db: file too large") {
		t.Errorf("while it cannot be written: %+v", got)
	}
	time.Sleep(2 * fresh)
	if got := s.checkState(t.Context()); got.Verdict != OK || strings.Count(log.String(), "the state can be used again") != 1 {
		t.Errorf("now it can be written: %+v\n%s", got, &log)
	}
	changes, last := 0, OK
	for range 600 { // ten minutes in which the balancer sends messages whenever the server is ready
		if last == OK {
			fail()
		}
		time.Sleep(fresh)
		if got := s.checkState(t.Context()).Verdict; got != last {
			changes, last = changes+1, got
		}
	}
	if changes > 24 || changes < 4 {
		t.Errorf("on a disk on which some files can be written, readiness changed %d times in ten minutes", changes)
	}
}
