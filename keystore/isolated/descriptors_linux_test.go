package isolated

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestNoDescriptors starts children with more and more free descriptors, until they are enough. Each
// failure before that is temporary, and leaves no descriptor open.
func TestNoDescriptors(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	c := &Config{Command: func() *exec.Cmd { return exec.Command("/bin/sh", "-c", `echo '{"ready":true}' >&3; sleep 60`) }}
	pin := newPIN(lockedmem.Copy([]byte("1234")))
	defer pin.close()
	first := next(t)
	for more := uint64(0); more < 40; more++ {
		limit := before
		limit.Cur = first + more
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
		p, err := c.start(1, 0, pin, nil, nil)
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
		if err == nil {
			p.stop()
			break
		}
		if !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("with %d descriptors: %v", more, err)
		}
	}
	if after := next(t); after != first {
		t.Errorf("descriptor %d is the next one, and before %d", after, first)
	}
}

// next returns the number of the next descriptor.
func next(t *testing.T) uint64 {
	t.Helper()
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return uint64(f.Fd())
}
