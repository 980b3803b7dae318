//go:build cgo && !nopkcs11

package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/porttest"
)

// runnable is a block of a page that a test runs as it stands.
var runnable = regexp.MustCompile("(?ms)^```sh run\n(.*?)^```")

// systemctl stands for the one of systemd, and runs the commands of the unit, which it finds
// in EXEC_START and EXEC_RELOAD. It returns when the server is ready, or has ended. crash is
// its own.
const systemctl = `#!/bin/sh
stop() {
	[ -e "$RUN/pid" ] || return 0
	kill "$(cat "$RUN/pid")"
	while [ -e "$RUN/pid" ]; do sleep 0.05; done
}
start() {
	rm -f "$RUN/ready"
	( exec="exec $EXEC_START"
	sh -c "$exec"' "$@"' sh --listen "$LISTEN" --ready-file "$RUN/ready" >"$RUN/log" 2>&1 &
	echo $! >"$RUN/pid"; wait $!; rm "$RUN/pid" ) </dev/null >/dev/null 2>&1 &
	until [ -e "$RUN/ready" ]; do
		sleep 0.05
		[ -e "$RUN/pid" ] || [ ! -s "$RUN/log" ] || { cat "$RUN/log" >&2; exit 1; }
	done
}
case $1 in
start) start ;;
stop) stop ;;
restart) stop; start ;;
reload) sh -c "$EXEC_RELOAD" ;;
crash) kill -9 "$(cat "$RUN/pid")"; while [ -e "$RUN/pid" ]; do sleep 0.05; done ;;
esac
`

// TestDocsWalked types what stands in docs/operations.md, with a token of SoftHSM: all of
// it with MSL_SOAK=1, else the first days.
func TestDocsWalked(t *testing.T) {
	skipWithRace(t)
	if err := findSoftHSM(); err != nil {
		t.Skip(err)
	}
	t.Parallel()
	text := page(t, "operations.md")
	blocks := runnable.FindAllStringSubmatchIndex(text, -1)
	if len(blocks) < 12 {
		t.Fatalf("found %d blocks to run", len(blocks))
	}
	if os.Getenv("MSL_SOAK") == "" {
		blocks = blocks[:4]
	}
	script := "set -e\n"
	for _, at := range blocks {
		line := 1 + strings.Count(text[:at[0]], "\n")
		script += fmt.Sprintf("echo '== docs/operations.md:%d' >&2\n%s", line, failing(text[at[2]:at[3]]))
	}
	walk(t, script)
}

// failing has the shell end where a command that has to fail does not.
func failing(block string) string {
	return regexp.MustCompile(`(?m)^! ([^#\n]*)`).ReplaceAllString(block, "if $1; then echo 'it did not fail' >&2; exit 1; fi ")
}

// walk runs a script in which the places of the Debian package are below a new directory, which
// it returns. Programs in its bin come before all others.
func walk(t *testing.T, script string, env ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	listen := porttest.Address(t)
	for _, made := range []string{"bin", "lib", "run"} {
		if err := os.Mkdir(filepath.Join(dir, made), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/systemctl"), []byte(systemctl), 0o700); err != nil {
		t.Fatal(err)
	}
	script = strings.NewReplacer("/var/lib/msl-hsm", filepath.Join(dir, "lib"), "127.0.0.1:8080", listen).Replace(script)
	path := filepath.Join(dir, "walk") // no command can read it from its standard input
	if err := os.WriteFile(path, []byte(script+"echo walked\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sh", path)
	c.Dir, c.WaitDelay = dir, 10*time.Second
	c.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "RUN="+filepath.Join(dir, "run"),
		"LISTEN="+listen, "EXEC_START="+ofUnit(t, "ExecStart"), "EXEC_RELOAD="+ofUnit(t, "ExecReload"), "MSL_HSM_CONFIG=", "GORACE=atexit_sleep_ms=0")
	c.Env = append(c.Env, env...)
	out, err := c.CombinedOutput()
	end := exec.Command(filepath.Join(dir, "bin/systemctl"), "stop")
	end.Env = c.Env
	if stopped, errStop := end.CombinedOutput(); errStop != nil {
		t.Errorf("systemctl stop: %v: %s", errStop, stopped)
	}
	if err != nil || !strings.HasSuffix(string(out), "walked\n") {
		t.Errorf("%v: %s", err, out)
	}
	if testing.Verbose() {
		t.Logf("%s", out)
	}
	return dir
}

// ofUnit returns a command of the unit, for the program and the configuration of the test.
func ofUnit(t *testing.T, key string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindStringSubmatch(readUnit(t))
	if found == nil {
		t.Fatalf("the unit has no %s", key)
	}
	return strings.NewReplacer("/usr/bin/", "", "/etc/msl-hsm/msl-hsm.yaml", `"$MSL_HSM_CONFIG"`).Replace(found[1])
}

func readUnit(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../../scripts/packaging/systemd/msl-hsm.service")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
