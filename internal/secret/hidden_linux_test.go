package secret

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPromptInterrupted has Ctrl-C typed at a prompt: the program ends by that signal, and the
// terminal shows again what is typed.
func TestPromptInterrupted(t *testing.T) {
	if os.Getenv("SECRET_PROMPT") != "" {
		_, err := Source("prompt").Read("PIN", 100)
		t.Fatalf("it went on: %v", err)
	}
	for name, key := range map[string]string{"SIGINT": "\x03", "SIGQUIT": "\x1c"} {
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
		fmt.Fprint(screen, key)
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
