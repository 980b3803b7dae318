// Package secret reads PINs, passwords and key files from where they are kept into locked
// memory.
//
// It cannot prevent two things: all code in the process can read the environment for as
// long as it runs, and the package that prompts at a terminal leaves the line on the
// heap, in pieces.
package secret

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
)

// A Source says where a secret comes from. It is not itself secret:
//
//	file:PATH        a regular file that only its owner may read; or file:///PATH
//	fd:3             an open file descriptor, read once to its end, then replaced by /dev/null
//	credential:NAME  a systemd credential
//	prompt           the terminal
//	env:NAME         an environment variable, which other processes may see
type Source string

// ErrEmpty means that a source has no secret.
var ErrEmpty = errors.New("it is empty")

// A TooLong error is the limit in bytes that a secret exceeds.
type TooLong int

func (n TooLong) Error() string { return fmt.Sprintf("it has more than %d bytes", int(n)) }

// Parse checks the form of a source. The error says what is expected and does not repeat
// the text, which may be the secret itself.
func Parse(s string) (Source, error) {
	kind, value, found := strings.Cut(s, ":")
	ok := false
	switch kind {
	case "file":
		// RFC 8089: file:///path is the same file, written as a URI.
		path, isURI := strings.CutPrefix(value, "//")
		if isURI {
			unescaped, err := url.PathUnescape(path)
			value, ok = filepath.Clean(unescaped), err == nil && filepath.IsAbs(unescaped)
		} else {
			ok = value != ""
		}
		s = "file:" + value
	case "fd":
		_, err := strconv.ParseUint(value, 10, 31)
		ok = err == nil
	case "credential":
		ok = value != "" && filepath.Base(value) == value && value != ".." && value != "."
	case "env":
		ok = value != "" && !strings.Contains(value, "=")
	case "prompt":
		ok = !found
	}
	if !ok {
		return "", errors.New("want file:PATH, fd:N, credential:NAME, prompt or env:NAME")
	}
	return Source(s), nil
}

// File returns the path if the source is a file.
func (s Source) File() (path string, ok bool) { return strings.CutPrefix(string(s), "file:") }

// Read reads a secret of 1 to limit bytes, without the line ending. The caller must close
// the result. what names the secret in a prompt. An empty secret is [ErrEmpty], one that
// is too long a [TooLong] error; it is never truncated.
func (s Source) Read(what string, limit int) (*lockedmem.Buffer, error) {
	raw, err := s.read(what, limit+len("\r\n"))
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	line := bytes.TrimSuffix(bytes.TrimSuffix(raw.Bytes(), []byte("\n")), []byte("\r"))
	switch {
	case len(line) == 0:
		return nil, ErrEmpty
	case len(line) > limit:
		return nil, TooLong(limit)
	}
	return lockedmem.Copy(line), nil
}

// read reads a source; if it is too long, one byte more than the limit.
func (s Source) read(what string, limit int) (*lockedmem.Buffer, error) {
	kind, value, _ := strings.Cut(string(s), ":")
	switch kind {
	case "file":
		return readPrivate(value, limit)
	case "fd":
		return readDescriptor(value, limit)
	case "credential":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return nil, errors.New("CREDENTIALS_DIRECTORY is not set: start the service with LoadCredential=, or, if this is not the service, name another source, such as prompt")
		}
		return readPrivate(filepath.Join(dir, value), limit)
	case "env":
		return lockedmem.Move([]byte(os.Getenv(value))), nil
	}
	return prompt(what)
}

// prompt prompts at the terminal, whatever the standard streams are.
func prompt(what string) (*lockedmem.Buffer, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("no terminal to prompt on: name another source, such as file:PATH")
	}
	line, err := readHidden(tty, what+": ")
	if errors.Is(err, errInterrupted) {
		return nil, err // the terminal is still being read, and must stay open
	}
	fmt.Fprintln(tty)
	tty.Close()
	if err != nil {
		clear(line)
		return nil, err
	}
	return lockedmem.Move(line), nil
}

var errInterrupted = errors.New("interrupted")
