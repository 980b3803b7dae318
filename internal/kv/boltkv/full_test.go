//go:build unix

package boltkv

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFull makes files where there is no room for them: nothing is left. A process of its own
// has the limit of their size.
func TestFull(t *testing.T) {
	if path := os.Getenv("BOLTKV_FULL"); path != "" {
		signal.Ignore(unix.SIGXFSZ)
		for _, room := range []uint64{0, 1 << 10, 20 << 10} {
			if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: room, Max: unix.RLIM_INFINITY}); err != nil {
				t.Fatal(err)
			}
			for _, how := range []Opening{CreateNew, OpenOrCreate} {
				if _, err := Open(path, layout(), how); err == nil {
					t.Errorf("%d bytes suffice", room)
				}
				if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("with %d bytes something is left: %v", room, err)
				}
			}
		}
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestFull$")
	c.Env = append(os.Environ(), "BOLTKV_FULL="+filepath.Join(t.TempDir(), "file"))
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
