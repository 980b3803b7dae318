package hsm

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/internal/secret"
	"github.com/msl-hsm/msl-hsm/keystore"
)

const maxPIN = 1024

// A PINSource says where the PIN comes from. It is not itself a secret:
//
//	file:/path       a regular file that only its owner may read
//	fd:3             an open file descriptor, read to its end
//	credential:name  a systemd credential
//	prompt           the terminal
//	env:NAME         an environment variable, which other processes may see
type PINSource string

// ParsePINSource checks the form of a PIN source. An absolute file path is also accepted,
// as in the pin-source of RFC 7512.
func ParsePINSource(s string) (PINSource, error) {
	if filepath.IsAbs(s) {
		s = "file:" + filepath.Clean(s)
	}
	source, err := secret.Parse(s)
	path, isFile := source.File()
	if err != nil || isFile && !filepath.IsAbs(path) {
		// Not repeated: it may be the PIN itself.
		return "", errors.New("hsm: not a PIN source: want file:/path, fd:N, credential:name, prompt or env:NAME")
	}
	return PINSource(source), nil
}

// read reads the PIN once. If it cannot be read there is an error, never an empty PIN.
func (p PINSource) read() (*pin, error) {
	source, err := ParsePINSource(string(p))
	if err != nil {
		return nil, keystore.NoPINf("%w", err)
	}
	memory, err := secret.Source(source).Read("PIN of the PKCS #11 token", maxPIN)
	var long secret.TooLong
	switch {
	case errors.Is(err, secret.ErrEmpty):
		return nil, keystore.NoPINf("hsm: PIN from %s is empty", source)
	case errors.As(err, &long):
		return nil, keystore.NoPINf("hsm: PIN from %s has more than %d bytes", source, maxPIN)
	case err != nil:
		return nil, keystore.NoPINf("hsm: PIN from %s: %w", source, err)
	}
	return &pin{memory}, nil
}

// A pin is a PIN in locked memory, which the store keeps to log in again.
type pin struct{ memory *lockedmem.Buffer }

// bytes is nil for no PIN, as C_Login requires if a token asks for the PIN.
func (p *pin) bytes() []byte {
	if p == nil {
		return nil
	}
	return p.memory.Bytes()
}

func (p *pin) wipe() {
	if p != nil {
		p.memory.Close()
	}
}

// Format keeps the PIN out of every printed form.
func (p pin) Format(f fmt.State, _ rune) { io.WriteString(f, "PIN") }
