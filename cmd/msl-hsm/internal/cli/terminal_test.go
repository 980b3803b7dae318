//go:build linux

package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newTerminal makes a pseudo-terminal, and returns both of its ends.
func newTerminal(t *testing.T) (screen, program *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return screen, program
}

// onScreen runs a command on a terminal, and returns what it shows.
func onScreen(t *testing.T, args ...string) string {
	t.Helper()
	screen, program := newTerminal(t)
	if code := runCheaply(args, strings.NewReader(""), program, program); code != 0 {
		t.Errorf("%v: exit code %d", args, code)
	}
	shown := make(chan string, 1)
	fmt.Fprint(program, "\x04end")
	go func() {
		var text strings.Builder
		for p := make([]byte, 1000); !strings.HasSuffix(text.String(), "\x04end"); {
			n, err := screen.Read(p)
			if text.Write(p[:n]); err != nil {
				break
			}
		}
		shown <- strings.TrimSuffix(text.String(), "\x04end")
	}()
	select {
	case text := <-shown:
		return text
	case <-time.After(10 * time.Second):
		t.Fatal("the terminal shows nothing")
		return ""
	}
}

// TestSendOnTerminal has a peer answer with text that would control a terminal.
func TestSendOnTerminal(t *testing.T) {
	skipWithRace(t)
	s := newSite(t)
	config := s.device()
	const said = "große 東京\tok\x1b]0;owned\x07\x1b[2J\u202eexe\xff\n"
	const shown = "große 東京\tok" + `\u001b]0;owned\u0007\u001b[2J\u202eexe\xff` + "\r\n"
	if got := onScreen(t, "send", "--config", config, "--data", said); got != shown {
		t.Errorf("on a terminal: %q", got)
	}
	if got := onScreen(t, "send", "--config", config, "--data", said, "--raw"); got != strings.ReplaceAll(said, "\n", "\r\n") {
		t.Errorf("with --raw: %q", got)
	}
	if got := s.run("send", "--config", config, "--data", said); got != said {
		t.Errorf("in a pipe: %q", got)
	}
	if got := onScreen(t, "send", "--config", config, "--data", "no line end \xe6\x9d"); got != `no line end \xe6\x9d`+"\r\n" {
		t.Errorf("without a line end: %q", got)
	}
}
