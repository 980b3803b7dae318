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

// readHidden reads a line that the terminal does not show. If a signal comes that ends
// programs, the terminal shows again what is typed, and then the signal has its way. Where
// something else takes it up, the error is errInterrupted.
func readHidden(tty *os.File) ([]byte, error) {
	fd := int(tty.Fd())
	shown, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	defer signal.Stop(told)
	read := make(chan typed, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		read <- typed{line, err}
	}()
	select {
	case t := <-read:
		return t.line, t.err
	case s := <-told:
		err := term.Restore(fd, shown)
		fmt.Fprintln(tty)
		signal.Stop(told)
		if number, ok := s.(unix.Signal); ok && err == nil {
			err = unix.Kill(unix.Getpid(), number)
		}
		if err != nil {
			return nil, err
		}
		time.Sleep(ending)
		return nil, errInterrupted
	}
}
