package cli

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
)

// fetch STATUS URL [TOKEN] gets a page, which must have that status, and come before the server
// gives up writing it, after 10 seconds.
func fetch(ts *testscript.TestScript, _ bool, args []string) {
	r, err := http.NewRequest(http.MethodGet, args[1], nil)
	ts.Check(err)
	if len(args) > 2 {
		r.Header.Set("Authorization", "Bearer "+args[2])
	}
	answer, err := (&http.Client{Timeout: 9 * time.Second}).Do(r)
	ts.Check(err)
	defer answer.Body.Close()
	_, err = io.Copy(ts.Stdout(), answer.Body)
	ts.Check(err)
	if strconv.Itoa(answer.StatusCode) != args[0] {
		ts.Fatalf("%s: status %d, want %s", args[1], answer.StatusCode, args[0])
	}
}

// logged FILE PATTERN waits for a line in a file that others write.
func logged(ts *testscript.TestScript, _ bool, args []string) {
	line := regexp.MustCompile(args[1])
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && line.Match(text) {
			return
		}
	}
	ts.Fatalf("%s does not get %s: %s", args[0], args[1], ts.ReadFile(args[0]))
}

// hangup sends SIGHUP to the server, and to the agent.
func hangup(ts *testscript.TestScript, _ bool, _ []string) {
	for _, c := range ts.BackgroundCmds() {
		if len(c.Args) > 1 && (c.Args[1] == "serve" || c.Args[1] == "agent") && c.ProcessState == nil {
			ts.Check(c.Process.Signal(syscall.SIGHUP))
		}
	}
}

// TestUnits has systemd verify the units, where it is there.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	dir := t.TempDir()
	units := []string{"msl-hsm.service", "msl-hsm.socket", "msl-hsm-agent.service"}
	for i, name := range units {
		text, err := os.ReadFile("../../../../scripts/packaging/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		units[i] = dir + "/" + name
		// The program that it starts need not be installed here.
		here := strings.ReplaceAll(string(text), "/usr/bin/msl-hsm", "/bin/true")
		if err := os.WriteFile(units[i], []byte(here), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	verify := exec.Command(analyze, append([]string{"verify", "--man=no", "--recursive-errors=no"}, units...)...)
	if out, err := verify.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
	security := exec.Command(analyze, "security", "--offline=true", "--threshold=25", units[0], units[2])
	if out, err := security.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestUnitTimes wants systemd to wait for as long as a server may take to start and to stop.
func TestUnitTimes(t *testing.T) {
	text, err := os.ReadFile("../../../../scripts/packaging/systemd/msl-hsm.service")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("TimeoutStopSec=%ds", int(config.DefaultShutdown.Seconds())+35); !strings.Contains(string(text), want) {
		t.Errorf("no %s: shutdown, a drain of 30 seconds and some more", want)
	}
	if want := "TimeoutStartSec=15min"; !strings.Contains(string(text), want) {
		t.Errorf("no %s: systemd would end a server that opens a big state after 90 seconds, again and again", want)
	}
}
