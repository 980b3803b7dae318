//go:build !noetcd

package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// shiftable builds a msl-hsm whose clock is ahead by the seconds in the file CLOCK_AHEAD, which
// setClock writes, also while it runs: the package time of the standard library is another one.
// (Programs in Go ask the kernel without libc, so libfaketime does not reach them.)
func shiftable(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(string(bytes.TrimSpace(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{"import (\n", "import (\n\t\"syscall\"\n\t\"unsafe\"\n"},
		{"\tsec, nsec, mono := runtimeNow()\n", "\tsec, nsec, mono := runtimeNow()\n\tif ahead != nil {\n\t\tsec += *ahead\n\t}\n"},
	} {
		if bytes.Count(text, []byte(change[0])) != 1 {
			t.Fatalf("%s is not as expected: %q", source, change[0])
		}
		text = bytes.Replace(text, []byte(change[0]), []byte(change[1]), 1)
	}
	dir := t.TempDir()
	write(t, dir, "time.go", string(text)+`
var ahead = func() *int64 {
	path, ok := syscall.Getenv("CLOCK_AHEAD")
	if !ok {
		return nil
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		panic(err)
	}
	at, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return (*int64)(unsafe.Pointer(&at[0]))
}()
`)
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {source: filepath.Join(dir, "time.go")}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "overlay.json", string(overlay))
	program := filepath.Join(dir, "msl-hsm")
	if out, err := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program,
		"github.com/msl-hsm/msl-hsm/cmd/msl-hsm").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	return program
}

// setClock writes a file for programs that shiftable builds.
func setClock(t *testing.T, path string, ahead time.Duration) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(ahead/time.Second)), 0); err != nil {
		t.Fatal(err)
	}
}

// TestClockSteps sets the clocks of servers while they run, one and then all, forward and back by
// an hour, a day and a year: devices go on, no message is processed twice, and what ends the
// tokens of a user ends them whatever the clocks say.
func TestClockSteps(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("with MSL_SOAK=1")
	}
	t.Parallel()
	s := newChaosSite(t, shiftable(t), make([]time.Duration, siteServers), deviceNames(10))
	stop := s.send(t.Context(), 400*time.Millisecond)
	for _, servers := range [][]*siteServer{s.servers[:1], s.servers} {
		for _, step := range []time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, 365 * 24 * time.Hour, -365 * 24 * time.Hour} {
			for _, ahead := range []time.Duration{step, 0} {
				for _, v := range servers {
					setClock(t, v.clockFile(), ahead)
				}
				s.further(100)
			}
			t.Logf("%d servers, %v", len(servers), step)
		}
	}
	stop()
	s.finish()
}

// TestClockStepsInFile sets the clock of a server whose state is in a file, forward and back by an
// hour and a day, and has old records removed and keys rotated while it is wrong and when it is right
// again: devices go on, and no message is processed twice.
func TestClockStepsInFile(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("with MSL_SOAK=1")
	}
	t.Parallel()
	s := newTokenSite(t, shiftable(t))
	s.addServer(0)
	s.balance()
	s.config("commands.yaml", "dev/server.db")
	s.register("dev/server.db", deviceNames(5))
	s.servers[0].start()
	stop := s.send(t.Context(), 400*time.Millisecond)
	s.further(20)
	for _, step := range []time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour} {
		for _, ahead := range []time.Duration{step, 0} {
			setClock(t, s.servers[0].clockFile(), ahead)
			s.mustRun("state", "prune")
			s.further(20)
			s.mustRun("key", "rotate")
			s.further(20)
		}
		t.Logf("%v", step)
	}
	stop()
	s.mustRun("state", "check")
	s.finish()
}
