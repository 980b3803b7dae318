package cli

import (
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
)

// present returns standard input and output, or what fails where the process was started with
// that stream closed: the Go runtime opens /dev/null in its place, which would make what nobody
// gave an empty message, and what nobody can read a success.
func present(stdin io.Reader, stdout io.Writer) (io.Reader, io.Writer) {
	if stdin == os.Stdin && startedWithout(syscall.Stdin) {
		stdin = missing{}
	}
	if stdout == os.Stdout && startedWithout(syscall.Stdout) {
		stdout = missing{}
	}
	return stdin, stdout
}

// missing is a stream that was closed when the process was started.
type missing struct{}

func (missing) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: os.Stdin.Name(), Err: syscall.EBADF}
}

func (missing) Write([]byte) (int, error) {
	return 0, &fs.PathError{Op: "write", Path: os.Stdout.Name(), Err: syscall.EBADF}
}

// outliveReaders has writing to a pipe fail that nobody reads any more. Otherwise it would kill
// the process: a server whose log is not taken any more, or a command between two keys.
func outliveReaders() { signal.Ignore(syscall.SIGPIPE) }
