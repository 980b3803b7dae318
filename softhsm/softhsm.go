// Package softhsm makes PKCS #11 tokens in software with SoftHSM 2: a permanent
// one for development ([New]), or a throwaway one for a test ([Temp]).
//
// SoftHSM keeps its keys in files. It does not protect them from anyone who can read
// the files and knows the PIN.
package softhsm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Token says how to reach a token.
type Token struct {
	Module string        // path of the library
	Config string        // path of SoftHSM's configuration
	Label  string        // of the token
	URI    string        // RFC 7512, with the module; without a PIN source
	PIN    hsm.PINSource // of a throwaway token
	SOPIN  []byte        // of a throwaway token
}

const (
	configName = "softhsm2.conf"
	tokenDir   = "directories.tokendir" // where the tokens are
)

// FindModule finds the library: at the path in SOFTHSM2_MODULE, or where the usual
// distributions install it.
func FindModule() (string, error) {
	if path := os.Getenv("SOFTHSM2_MODULE"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("softhsm: SOFTHSM2_MODULE: %w", err)
		}
		return path, nil
	}
	for _, path := range []string{
		"/usr/lib/softhsm/libsofthsm2.so",                   // Debian, Ubuntu, Arch, Alpine
		"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",  // Debian, Ubuntu
		"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so", // Debian, Ubuntu
		"/usr/lib64/pkcs11/libsofthsm2.so",                  // Fedora, RHEL
		"/usr/lib64/softhsm/libsofthsm2.so",                 // openSUSE
		"/usr/lib/pkcs11/libsofthsm2.so",                    // Arch
		"/usr/lib/libsofthsm2.so",                           // Arch
		"/usr/local/lib/softhsm/libsofthsm2.so",             // built from source, FreeBSD
		"/opt/homebrew/lib/softhsm/libsofthsm2.so",          // Homebrew, Apple silicon
	} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("softhsm: SoftHSM 2 is not installed: run apt-get install softhsm2 (Debian, Ubuntu), dnf install softhsm (Fedora), pacman -S softhsm (Arch), apk add softhsm (Alpine) or brew install softhsm (macOS), or set SOFTHSM2_MODULE")
}

// Configure writes a configuration for tokens in dir unless there is one, and makes
// this process use it. SoftHSM reads the path of its configuration from the
// environment whenever it is initialized, and has one at a time, so the variable stays
// set.
func Configure(dir string) (config string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("softhsm: %w", err)
	}
	tokens := filepath.Join(dir, "tokens")
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return "", fmt.Errorf("softhsm: %w; name another directory", err)
	}
	config = filepath.Join(dir, configName)
	text := fmt.Sprintf("%s = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", tokenDir, tokens)
	if err := atomicfile.Create(config, []byte(text), atomicfile.DefaultMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("softhsm: %w", err)
	}
	if err := isFor(config, tokens); err != nil {
		return "", err
	}
	return config, os.Setenv("SOFTHSM2_CONF", config)
}

// isFor refuses a configuration for the tokens of another directory, such as the one in a
// copy of a directory: changes would then affect the original's tokens.
func isFor(config, tokens string) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return fmt.Errorf("softhsm: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, "=")
		if strings.TrimSpace(name) != tokenDir {
			continue
		}
		there, err := os.Stat(strings.TrimSpace(value))
		here, errHere := os.Stat(tokens)
		if err != nil || errHere != nil || !os.SameFile(there, here) {
			return fmt.Errorf("softhsm: %s is for the tokens in %s, since its directory was copied or moved: remove it, and it is made again", config, strings.TrimSpace(value))
		}
	}
	return nil
}

// New makes a permanent token in dir, or uses the existing one with that label without
// changing its PINs.
func New(dir, label string, userPIN, soPIN []byte) (*Token, error) {
	module, err := FindModule()
	if err != nil {
		return nil, err
	}
	config, err := Configure(dir)
	if err != nil {
		return nil, err
	}
	err = hsm.InitToken(module, label, soPIN, userPIN)
	if err != nil && !errors.Is(err, keystore.ErrExists) {
		return nil, fmt.Errorf("softhsm: %w", err)
	}
	if made, err := os.ReadDir(filepath.Join(dir, "tokens")); err != nil || len(made) == 0 {
		return nil, fmt.Errorf("softhsm: no token in %s: this process uses SoftHSM with another configuration already: close its stores first", dir)
	}
	uri := hsm.URI{Token: label, ModulePath: module}
	return &Token{Module: module, Config: config, Label: label, URI: uri.String()}, nil
}
