package secret

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPromptInterrupted has Ctrl-C typed at a prompt, or another signal sent: the program ends by
// that signal, and the terminal shows again what is typed.
func TestPromptInterrupted(t *testing.T) {
	if os.Getenv("SECRET_PROMPT") != "" {
		_, err := Source("prompt").Read("PIN", 100)
		t.Fatalf("it went on: %v", err)
	}
	typing := func(key string) func(*os.File, *os.Process) {
		return func(screen *os.File, _ *os.Process) { fmt.Fprint(screen, key) }
	}
	sending := func(s os.Signal) func(*os.File, *os.Process) {
		return func(_ *os.File, p *os.Process) { p.Signal(s) }
	}
	defer signal.Stop(takeSignals()) // a command does not inherit a handler, but that a signal is ignored, as by nohup
	for name, interrupt := range map[string]func(*os.File, *os.Process){
		"Ctrl-C": typing("\x03"), "Ctrl-\\": typing("\x1c"), "SIGTERM": sending(unix.SIGTERM), "SIGHUP": sending(unix.SIGHUP),
	} {
		screen, keyboard := terminal(t)
		c := exec.Command(os.Args[0], "-test.run=^TestPromptInterrupted$")
		c.Env = append(os.Environ(), "SECRET_PROMPT=1")
		c.Stdin = keyboard
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		watchdog := time.AfterFunc(2*time.Minute, func() { c.Process.Kill() })
		for end := time.Now().Add(2 * time.Minute); !hidden(t, keyboard) && time.Now().Before(end); {
			time.Sleep(2 * time.Millisecond) // nothing tells of it
		}
		interrupt(screen, c.Process)
		err := c.Wait()
		watchdog.Stop()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() == 1 || exit.ExitCode() == 0 {
			t.Errorf("%s: %v", name, err)
		}
		if hidden(t, keyboard) {
			t.Errorf("%s: the terminal shows nothing any more", name)
		}
	}
}

// takeSignals handles the signals that end programs, until signal.Stop.
func takeSignals() chan os.Signal {
	taken := make(chan os.Signal, 1)
	signal.Notify(taken, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP)
	return taken
}

// TestPromptStopped has Ctrl-Z typed at a prompt: while the program is stopped, the shell's
// terminal shows what is typed, and what is typed when it continues is hidden, and read.
func TestPromptStopped(t *testing.T) {
	if os.Getenv("SECRET_STOPPED") != "" {
		if b, err := Source("prompt").Read("PIN", 100); err != nil || string(b.Bytes()) != "1234" {
			t.Fatalf("%q, %v", b.Bytes(), err)
		}
		return
	}
	screen, keyboard := terminal(t)
	c := exec.Command("sh", "-c", `set -m
"$0" -test.run='^TestPromptStopped$'
stty -a >"$1"
read line && [ "$line" = on ] && fg`, os.Args[0], t.TempDir()+"/stopped")
	c.Env = append(os.Environ(), "SECRET_STOPPED=1")
	c.Stdin, c.Stdout, c.Stderr = keyboard, keyboard, keyboard
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(2*time.Minute, func() { unix.Kill(-c.Process.Pid, unix.SIGKILL) })
	defer watchdog.Stop()
	wait := func(what string, is func() bool) {
		for end := time.Now().Add(2 * time.Minute); !is() && time.Now().Before(end); {
			time.Sleep(2 * time.Millisecond) // nothing tells of it
		}
		if !is() {
			t.Fatalf("%s: waited in vain", what)
		}
	}
	wait("prompt", func() bool { return hidden(t, keyboard) })
	fmt.Fprint(screen, "\x1a")
	wait("stopped", func() bool { text, _ := os.ReadFile(c.Args[4]); return len(text) > 0 })
	if text, _ := os.ReadFile(c.Args[4]); !strings.Contains(string(text), " echo ") {
		t.Errorf("while it is stopped: %s", text)
	}
	fmt.Fprint(screen, "on\n")
	wait("continued", func() bool { return hidden(t, keyboard) })
	fmt.Fprint(screen, "1234\n")
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

// terminal makes a pseudo-terminal, and returns both of its ends.
func terminal(t *testing.T) (screen, keyboard *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	keyboard, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	return screen, keyboard
}

// hidden reports whether a terminal does not show what is typed.
func hidden(t *testing.T, terminal *os.File) bool {
	t.Helper()
	is, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return is.Lflag&unix.ECHO == 0
}
