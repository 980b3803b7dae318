package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/msl-hsm/msl-hsm/keystore"
)

const maxPIN = 1024

// A PINSource says where the PIN comes from. It is no secret itself:
//
//	file:/path       a regular file that only its owner may read
//	fd:3             an open file descriptor, read to its end
//	credential:name  a systemd credential
//	prompt           the terminal
//	env:NAME         an environment variable, which other processes may see
type PINSource string

// ParsePINSource checks the form of a PIN source. The absolute path of a file
// is one too, as in the pin-source of RFC 7512.
func ParsePINSource(s string) (PINSource, error) {
	if filepath.IsAbs(s) {
		return PINSource("file:" + s), nil
	}
	kind, value, found := strings.Cut(s, ":")
	ok := false
	switch kind {
	case "file":
		// RFC 8089: file:///path is the same file, written as a URI.
		path, isURI := strings.CutPrefix(value, "//")
		var err error
		if isURI {
			path, err = url.PathUnescape(path)
		}
		if ok = err == nil && filepath.IsAbs(path); ok {
			s = "file:" + path
		}
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
		// Not repeated: it may be the PIN itself.
		return "", errors.New("hsm: not a PIN source: want file:/path, fd:N, credential:name, prompt or env:NAME")
	}
	return PINSource(s), nil
}

// read reads the PIN once. Where it cannot be read there is an error, never an
// empty PIN.
func (p PINSource) read() (*pin, error) {
	source, err := ParsePINSource(string(p))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, keystore.ErrPIN)
	}
	raw, err := source.bytes()
	defer clear(raw)
	if err != nil {
		return nil, fmt.Errorf("hsm: PIN from %s: %w: %w", source, err, keystore.ErrPIN)
	}
	line := bytes.TrimSuffix(bytes.TrimSuffix(raw, []byte("\n")), []byte("\r"))
	switch {
	case len(line) == 0:
		return nil, fmt.Errorf("hsm: PIN from %s is empty: %w", source, keystore.ErrPIN)
	case len(line) > maxPIN:
		return nil, fmt.Errorf("hsm: PIN from %s has more than %d bytes: %w", source, maxPIN, keystore.ErrPIN)
	}
	return newPIN(line), nil
}

func (p PINSource) bytes() ([]byte, error) {
	kind, value, _ := strings.Cut(string(p), ":")
	switch kind {
	case "file":
		return readSecret(value)
	case "fd":
		return readDescriptor(value)
	case "credential":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return nil, errors.New("CREDENTIALS_DIRECTORY is not set: start the service with LoadCredential=")
		}
		return readSecret(filepath.Join(dir, value))
	case "env":
		return []byte(os.Getenv(value)), nil
	}
	return prompt()
}

// readSecret reads a file that nobody but its owner may read. What it is, is
// asked of the open file, so that it cannot change in between.
func readSecret(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
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
	return readAll(f)
}

func readDescriptor(number string) ([]byte, error) {
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(n), "fd:"+number)
	if f == nil {
		return nil, errors.New("it is not open")
	}
	defer f.Close()
	return readAll(f)
}

// readAll reads into one buffer, so that growing leaves no copy behind.
func readAll(r io.Reader) ([]byte, error) {
	b := make([]byte, maxPIN+3)
	n, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return b[:n], err
}

func prompt() ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("there is no terminal to ask at")
	}
	defer tty.Close()
	fmt.Fprint(tty, "PIN of the PKCS #11 token: ")
	defer fmt.Fprintln(tty)
	return term.ReadPassword(int(tty.Fd()))
}

// A pin is a PIN in a page of its own, kept from the swap file where the
// system allows it.
type pin struct {
	page   []byte
	n      int
	mapped bool
}

func newPIN(b []byte) *pin {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		page = make([]byte, maxPIN)
	} else {
		// Best effort: a process may have no allowance for locked memory.
		_ = unix.Mlock(page)
	}
	return &pin{page, copy(page, b), err == nil}
}

// bytes is nil for no PIN, as C_Login wants it where a token asks by itself.
func (p *pin) bytes() []byte {
	if p == nil {
		return nil
	}
	return p.page[:p.n]
}

func (p *pin) wipe() {
	if p == nil {
		return
	}
	clear(p.page)
	if p.mapped {
		_ = unix.Munmap(p.page)
	}
	p.page, p.n, p.mapped = nil, 0, false
}

// Format keeps the PIN out of every printed form.
func (p pin) Format(f fmt.State, _ rune) { io.WriteString(f, "PIN") }
