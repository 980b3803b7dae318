package keys

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	secrets "github.com/msl-hsm/msl-hsm/internal/secret"
)

// MaxSecret limits a PIN, a password or a file of pre-shared keys, in bytes.
const MaxSecret = 64 << 10

// Secret reads a secret from a source, without the line ending. The caller must close it.
func Secret(source, what string) (*lockedmem.Buffer, error) {
	s, err := parseSource(source)
	if err != nil {
		return nil, exit.Usagef("source of the %s: %w", what, err)
	}
	b, err := s.Read(what, MaxSecret)
	switch {
	case errors.Is(err, secrets.ErrEmpty) && strings.HasPrefix(string(s), "fd:"):
		return nil, exit.WithCode(fmt.Errorf("the %s from %s is empty, or was already read: to read it more than once, use another source, such as file:PATH", what, s), exit.Secret)
	case errors.Is(err, secrets.ErrEmpty):
		return nil, exit.WithCode(fmt.Errorf("the %s from %s is empty", what, s), exit.Secret)
	case err != nil:
		return nil, exit.WithCode(fmt.Errorf("cannot read the %s from %s: %w", what, s, err), exit.Secret)
	}
	return b, nil
}

// parseSource checks the form of a source, and makes the path of a file absolute.
func parseSource(source string) (secrets.Source, error) {
	s, err := secrets.Parse(source)
	if path, ok := s.File(); ok {
		path, err = filepath.Abs(path)
		s = secrets.Source("file:" + path)
	}
	return s, err
}

// isFile reports whether a source can be read again: a file, or a systemd credential.
func isFile(source string) bool {
	kind, _, _ := strings.Cut(source, ":")
	return kind == "file" || kind == "credential"
}

// ReadPrivate reads a file that only its owner may read. The caller must close the
// result.
func ReadPrivate(path string) (*lockedmem.Buffer, error) { return secrets.ReadFile(path, MaxSecret) }

// NewSecret reads a secret that is being chosen; a prompt asks for it twice.
func NewSecret(source, what string) (*lockedmem.Buffer, error) {
	first, err := Secret(source, what)
	if err != nil || source != "prompt" {
		return first, err
	}
	second, err := Secret(source, what+", again")
	if err != nil {
		first.Close()
		return nil, err
	}
	defer second.Close()
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		first.Close()
		return nil, exit.WithCode(fmt.Errorf("the two do not match: try again"), exit.Secret)
	}
	return first, nil
}

// OrPrompt returns the source of a secret, or the terminal if none is given.
func OrPrompt(source string) string {
	if source == "" {
		return "prompt"
	}
	return source
}
