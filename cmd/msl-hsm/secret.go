package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/term"
)

// maxSecret bounds a PIN, a password or a file of pre-shared keys.
const maxSecret = 64 << 10

// secret reads a secret from a source in the syntax of hsm.PINSource (package hsm is
// not in every build), without the end of its line. The caller wipes it.
func secret(source, what string) ([]byte, error) {
	s, err := parseSource(source)
	if err != nil {
		return nil, usagef("source of the %s: %w", what, err)
	}
	b, err := readSource(s, what)
	if err != nil {
		return nil, coded{fmt.Errorf("cannot read the %s from %s: %w", what, s, err), exitSecret}
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return nil, coded{fmt.Errorf("the %s from %s is empty", what, s), exitSecret}
	}
	return b, nil
}

// notFromEnvironment refuses a flag that takes a secret from the environment:
// other processes may see it there, so that has to be written down in the
// configuration.
func notFromEnvironment(flag, source string) error {
	if strings.HasPrefix(source, "env:") {
		return usagef("%s takes no env:NAME: other processes may see the environment; name it in the configuration if it must be", flag)
	}
	return nil
}

// parseSource checks the form of a source, and makes the path of a file absolute.
func parseSource(source string) (string, error) {
	kind, value, colon := strings.Cut(source, ":")
	ok := colon && value != ""
	switch kind {
	case "file":
		if ok {
			path, err := filepath.Abs(value)
			return "file:" + path, err
		}
	case "fd":
		_, err := strconv.ParseUint(value, 10, 31)
		ok = err == nil
	case "credential":
		ok = ok && filepath.Base(value) == value && value != ".." && value != "."
	case "env":
		ok = ok && !strings.Contains(value, "=")
	case "prompt":
		ok = !colon
	default:
		ok = false
	}
	if !ok {
		// Not quoted: it may be the secret itself, given by mistake.
		return "", errors.New("want file:PATH, fd:N, credential:NAME, prompt or env:NAME")
	}
	return source, nil
}

func readSource(source, what string) ([]byte, error) {
	kind, value, _ := strings.Cut(source, ":")
	switch kind {
	case "file":
		return readPrivate(value)
	case "fd":
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return nil, err
		}
		f := os.NewFile(uintptr(n), source)
		defer f.Close()
		return readBounded(f)
	case "credential":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return nil, errors.New("CREDENTIALS_DIRECTORY is not set: start the service with LoadCredential=")
		}
		return readPrivate(filepath.Join(dir, value))
	case "env":
		return []byte(os.Getenv(value)), nil
	}
	return prompt(what)
}

// readPrivate reads a file that nobody but its owner may read. What it is, is
// asked of the open file, so that it cannot change in between.
func readPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("others may read it (mode %04o): run chmod 600 on it", info.Mode().Perm())
	}
	return readBounded(f)
}

func readBounded(r io.Reader) ([]byte, error) {
	b := make([]byte, maxSecret+1)
	n, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return b[:n], nil
	}
	if err == nil {
		err = fmt.Errorf("it has more than %d bytes", maxSecret)
	}
	clear(b)
	return nil, err
}

// prompt asks at the terminal, whatever the standard streams are.
func prompt(what string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("there is no terminal to ask at: name another source, as file:PATH")
	}
	defer tty.Close()
	fmt.Fprintf(tty, "%s: ", what)
	defer fmt.Fprintln(tty)
	return term.ReadPassword(int(tty.Fd()))
}

// newSecret reads a secret that is being chosen: at a prompt twice.
func newSecret(source, what string) ([]byte, error) {
	first, err := secret(source, what)
	if err != nil || source != "prompt" {
		return first, err
	}
	second, err := secret(source, what+", again")
	defer clear(second)
	if err == nil && !bytes.Equal(first, second) {
		err = coded{fmt.Errorf("the two are not the same: try again"), exitSecret}
	}
	if err != nil {
		clear(first)
		return nil, err
	}
	return first, nil
}

func orPrompt(source string) string {
	if source == "" {
		return "prompt"
	}
	return source
}
