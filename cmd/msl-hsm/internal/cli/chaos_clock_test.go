//go:build !noetcd

package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// shiftable builds a msl-hsm whose clock is ahead by the duration in CLOCK_AHEAD: the
// package time of the standard library is another one. (Programs in Go ask the kernel
// without libc, so libfaketime does not reach them.)
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
		{"import (\n", "import (\n\t\"syscall\"\n"},
		{"\tsec, nsec, mono := runtimeNow()\n", "\tsec, nsec, mono := runtimeNow()\n\tsec += ahead\n"},
	} {
		if bytes.Count(text, []byte(change[0])) != 1 {
			t.Fatalf("%s is not as expected: %q", source, change[0])
		}
		text = bytes.Replace(text, []byte(change[0]), []byte(change[1]), 1)
	}
	dir := t.TempDir()
	write(t, dir, "time.go", string(text)+`
var ahead = func() int64 {
	text, _ := syscall.Getenv("CLOCK_AHEAD")
	d, _ := ParseDuration(text)
	return int64(d / Second)
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
