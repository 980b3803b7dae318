//go:build unix

package secret

import (
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// ending is how long a signal may take to end the process.
const ending = time.Second

// A typed line is what was read, or why not.
type typed struct {
	line []byte
	err  error
}

// readHidden prompts for a line that the terminal does not show. If a signal arrives that
// ends or stops programs, the terminal's echo is restored before the signal takes effect.
// A stopped process prompts again when it continues. If something else handles a signal
// that ends programs, the error is errInterrupted.
func readHidden(tty *os.File, prompt string) ([]byte, error) {
	fd := int(tty.Fd())
	shown, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	told := make(chan os.Signal, 1)
	caught := []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGTSTP}
	if !signal.Ignored(unix.SIGHUP) { // as with nohup
		caught = append(caught, unix.SIGHUP)
	}
	signal.Notify(told, caught...)
	defer signal.Stop(told)
	fmt.Fprint(tty, prompt)
	read := make(chan typed, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		read <- typed{line, err}
	}()
	for {
		select {
		case t := <-read:
			return t.line, t.err
		case s := <-told:
			if s != unix.SIGTSTP {
				return nil, interrupt(tty, shown, s, told)
			}
			if err := suspend(tty, shown); err != nil {
				return nil, err
			}
			fmt.Fprint(tty, prompt)
		}
	}
}

// interrupt lets a signal end the process.
func interrupt(tty *os.File, shown *term.State, s os.Signal, told chan os.Signal) error {
	err := term.Restore(int(tty.Fd()), shown)
	fmt.Fprintln(tty)
	signal.Stop(told)
	if number, ok := s.(unix.Signal); ok && err == nil {
		err = unix.Kill(unix.Getpid(), number)
	}
	if err != nil {
		return err
	}
	time.Sleep(ending)
	return errInterrupted
}

// suspend stops the process, like Ctrl-Z, and returns when it continues. A process that
// is not a shell job is not stopped, since nobody could continue it: it is in the group
// of the session leader.
func suspend(tty *os.File, shown *term.State) error {
	session, err := unix.Getsid(0)
	if err != nil || session == unix.Getpgrp() {
		return err
	}
	fd := int(tty.Fd())
	hidden, err := term.GetState(fd)
	if err == nil {
		err = term.Restore(fd, shown)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(tty)
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, unix.SIGCONT)
	defer signal.Stop(continued)
	// Go has no way back to the default action of SIGTSTP.
	if err := unix.Kill(unix.Getpid(), unix.SIGSTOP); err != nil {
		return err
	}
	<-continued
	return term.Restore(fd, hidden)
}
