package main

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	secrets "github.com/msl-hsm/msl-hsm/internal/secret"
)

// maxSecret bounds a PIN, a password or a file of pre-shared keys.
const maxSecret = 64 << 10

// secret reads a secret from a source, without the end of its line. The caller
// closes it.
func secret(source, what string) (*lockedmem.Buffer, error) {
	s, err := parseSource(source)
	if err != nil {
		return nil, usagef("source of the %s: %w", what, err)
	}
	b, err := s.Read(what, maxSecret)
	switch {
	case errors.Is(err, secrets.ErrEmpty):
		return nil, withCode(fmt.Errorf("the %s from %s is empty", what, s), exitSecret)
	case err != nil:
		return nil, withCode(fmt.Errorf("cannot read the %s from %s: %w", what, s, err), exitSecret)
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
func parseSource(source string) (secrets.Source, error) {
	s, err := secrets.Parse(source)
	if path, ok := s.File(); ok {
		path, err = filepath.Abs(path)
		s = secrets.Source("file:" + path)
	}
	return s, err
}

// readPrivate reads a file that nobody but its owner may read. The caller closes
// what it gets.
func readPrivate(path string) (*lockedmem.Buffer, error) { return secrets.ReadFile(path, maxSecret) }

// newSecret reads a secret that is being chosen: at a prompt twice.
func newSecret(source, what string) (*lockedmem.Buffer, error) {
	first, err := secret(source, what)
	if err != nil || source != "prompt" {
		return first, err
	}
	second, err := secret(source, what+", again")
	if err != nil {
		first.Close()
		return nil, err
	}
	defer second.Close()
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		first.Close()
		return nil, withCode(fmt.Errorf("the two are not the same: try again"), exitSecret)
	}
	return first, nil
}

func orPrompt(source string) string {
	if source == "" {
		return "prompt"
	}
	return source
}
