// Package secret reads PINs, passwords and files of keys from where they are kept,
// into locked memory.
//
// What it cannot do: the environment is memory that everybody in the process may
// read for as long as it runs, and the package that asks at a terminal leaves the
// line on the heap, in pieces.
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

	"golang.org/x/term"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
)

// A Source says where a secret comes from. It is no secret itself:
//
//	file:PATH        a regular file that only its owner may read; or file:///PATH
//	fd:3             an open file descriptor, read to its end and closed
//	credential:NAME  a systemd credential
//	prompt           the terminal
//	env:NAME         an environment variable, which other processes may see
type Source string

// ErrEmpty is a source that has no secret.
var ErrEmpty = errors.New("it is empty")

// A TooLong is the number of bytes that a secret has more than.
type TooLong int

func (n TooLong) Error() string { return fmt.Sprintf("it has more than %d bytes", int(n)) }

// Parse checks the form of a source. The error says what is wanted and does not
// repeat the text, which may be the secret itself.
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

// File is the path of a file that is a source.
func (s Source) File() (path string, ok bool) { return strings.CutPrefix(string(s), "file:") }

// Read reads a secret of 1 to limit bytes, without the end of its line, for the
// caller to close. what names it to a person at a prompt. No secret is [ErrEmpty],
// one that is longer a [TooLong], and never cut.
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

// read reads a source, of one that is too long a byte more than it may have.
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
			return nil, errors.New("CREDENTIALS_DIRECTORY is not set: start the service with LoadCredential=")
		}
		return readPrivate(filepath.Join(dir, value), limit)
	case "env":
		return lockedmem.Move([]byte(os.Getenv(value))), nil
	}
	return prompt(what)
}

// prompt asks at the terminal, whatever the standard streams are.
func prompt(what string) (*lockedmem.Buffer, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("no terminal to prompt on: name another source, such as file:PATH")
	}
	defer tty.Close()
	fmt.Fprintf(tty, "%s: ", what)
	defer fmt.Fprintln(tty)
	line, err := term.ReadPassword(int(tty.Fd()))
	if err != nil {
		clear(line)
		return nil, err
	}
	return lockedmem.Move(line), nil
}
