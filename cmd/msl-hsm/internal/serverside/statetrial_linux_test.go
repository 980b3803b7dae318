package serverside

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// TestStateTrial has a file that cannot be written for longer than a failure counts, and a server
// that no message reaches meanwhile. It runs in a process of its own: go test has files, too, that
// the limit would keep from being written.
func TestStateTrial(t *testing.T) {
	if os.Getenv("STATE_TRIAL") != "" {
		tryState(t)
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestStateTrial$")
	c.Env = append(os.Environ(), "STATE_TRIAL=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func tryState(t *testing.T) {
	file, err := bolt.CreateServer(filepath.Join(t.TempDir(), "server.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := &Service{base: &base{State: &admin.State{Server: file.Server, File: file}}}
	s.stateFailed.Store(&stateFailure{"renew", errors.New("no space left on device"), time.Now().Add(-recently), time.Now().Add(-recently)})
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
	s.stateTrial.began = time.Time{}
	if got := s.checkState(t.Context()); got.Verdict != OK || s.stateFailed.Load() != nil {
		t.Errorf("now it can be written: %+v", got)
	}
}
