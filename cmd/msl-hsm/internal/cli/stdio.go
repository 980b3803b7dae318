package cli

import (
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
)

// present returns standard input and output; for a stream that was closed when the
// process started, it returns one that fails. The Go runtime would open /dev/null
// instead, and missing input would become an empty message, and unreadable output a
// success.
func present(stdin io.Reader, stdout io.Writer) (io.Reader, io.Writer) {
	if stdin == os.Stdin && startedWithout(syscall.Stdin) {
		stdin = missing{}
	}
	if stdout == os.Stdout && startedWithout(syscall.Stdout) {
		stdout = missing{}
	}
	return stdin, stdout
}

// missing is a stream that was closed when the process started.
type missing struct{}

func (missing) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: os.Stdin.Name(), Err: syscall.EBADF}
}

func (missing) Write([]byte) (int, error) {
	return 0, &fs.PathError{Op: "write", Path: os.Stdout.Name(), Err: syscall.EBADF}
}

// outliveReaders makes writing to a pipe without a reader fail. Otherwise it would kill
// the process: a server whose log is no longer read, or a command between two keys.
func outliveReaders() { signal.Ignore(syscall.SIGPIPE) }
