package keys

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// Open opens the configured key store, in a separate process if so configured.
func Open(c *config.Config) (Store, error) {
	return sessionsWhere(c, func(c *config.Config) (Store, error) {
		return withinTries(&c.Keystore, startPauses, func() (Store, error) { return open(c) })
	})
}

func open(c *config.Config) (Store, error) {
	if len(c.Keystore.Tokens) > 0 {
		return openTokens(&c.Keystore)
	}
	if !c.Keystore.Isolate {
		return openHere(c)
	}
	if err := cmp.Or(c.Keystore.CheckIsolate(), named(&c.Keystore)); err != nil {
		return nil, err
	}
	return openIsolated(&c.Keystore)
}

// OpenToLook opens the configured key store for viewing or destroying keys, which no
// weakness of a key prevents.
func OpenToLook(c *config.Config) (Store, error) {
	look := *c
	look.Keystore.AllowWeak = slices.Concat(c.Keystore.AllowWeak, keyWeaknesses())
	return Open(&look)
}

// openHere opens the configured key store in this process.
func openHere(c *config.Config) (Store, error) {
	if path, ok := strings.CutPrefix(c.Keystore.URI, "soft:"); ok {
		return openSoftFile(c, path, softConfig(c))
	}
	if strings.HasPrefix(c.Keystore.URI, "tpm:") {
		return openTPM(c, (*tpm.Device).OpenStore)
	}
	if err := named(&c.Keystore); err != nil {
		return nil, err
	}
	return openPKCS11(&c.Keystore)
}

// Check finds what is wrong with the settings of the key store without opening it. None is
// not wrong: a flag may name it.
func Check(c *config.Config) error {
	path, isSoft := strings.CutPrefix(c.Keystore.URI, "soft:")
	switch {
	case c.Keystore.None():
		return nil
	case isSoft && path == "":
		return noSoftFile()
	case isSoft && c.Keystore.Random == config.RandomMixed:
		return noDevice()
	case isSoft:
		return nil
	case strings.HasPrefix(c.Keystore.URI, "tpm:"):
		_, err := TPMURI(c)
		return err
	}
	return checkPKCS11(&c.Keystore)
}

func noSoftFile() error { return exit.Usagef("key store soft: names no file: write soft:FILE") }

// named requires a key store.
func named(k *config.Keystore) error {
	if k.None() {
		return exit.Usagef("no key store: give --keystore URI, or keystore.uri in the configuration")
	}
	return nil
}

// Make opens the key store in this process, creating the file of soft keys if there is
// none.
func Make(c *config.Config) (Store, error) {
	return sessionsWhere(c, makeStore)
}

func makeStore(c *config.Config) (Store, error) {
	if strings.HasPrefix(c.Keystore.URI, "tpm:") {
		return makeTPM(c)
	}
	path, isSoft := strings.CutPrefix(c.Keystore.URI, "soft:")
	if len(c.Keystore.Tokens) > 0 {
		return openTokens(&c.Keystore)
	}
	if !isSoft {
		return openHere(c)
	}
	changed := softConfig(c)
	if c.Keystore.Argon2 != (config.Argon2{}) {
		changed.Cost = c.Keystore.Argon2.Cost()
	}
	if _, err := os.Stat(path); path != "" && errors.Is(err, fs.ErrNotExist) {
		return openSoft(c, path, NewSecret, changed.Create)
	}
	return openSoftFile(c, path, changed)
}

// softConfig is for a store whose file keeps its cost: only those who may change keys pay
// for a second key of the file.
func softConfig(c *config.Config) soft.Config {
	return soft.Config{SealPrefix: c.Keystore.Prefix, CheapForTests: c.Keystore.CheapForTests}
}

// openSoftFile opens a file of soft keys. Nobody is asked for the passphrase of a file that no
// passphrase opens.
func openSoftFile(c *config.Config, path string, with soft.Config) (Store, error) {
	if path == "" {
		return nil, noSoftFile()
	}
	err := soft.Look(path)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, exit.WithCode(fmt.Errorf("the key file %s does not exist: correct the path, or make it with msl-hsm key create", path), exit.Keystore)
	}
	if errors.Is(err, keystore.ErrBadData) {
		return nil, fmt.Errorf("%w: correct the path, or restore the file from a backup", err)
	}
	if err != nil {
		return nil, err
	}
	return openSoft(c, path, Secret, with.Open)
}

func openSoft(c *config.Config, path string, ask func(source, what string) (*lockedmem.Buffer, error), open func(string, []byte) (*soft.Store, error)) (Store, error) {
	if c.Keystore.PIN == "" {
		return nil, exit.Usagef("no passphrase for the keys in %s: name its source with --pin file:PATH, or pin: in the configuration", path)
	}
	passphrase, err := ask(c.Keystore.PIN, "passphrase of "+path)
	if err != nil {
		return nil, err
	}
	defer passphrase.Close()
	s, err := open(path, passphrase.Bytes())
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Reread reads the PIN again if it is in a file, and finds the keys that other programs
// made or destroyed.
func Reread(c *config.Keystore, s Store) error {
	if err := rereadPIN(c, s); err != nil {
		return err
	}
	if several, ok := deviceOf(s).(interface{ Retry() }); ok {
		several.Retry() // lost tokens, with that PIN
	}
	return Refresh(s)
}

// Refresh looks again for keys that other programs may have made or destroyed.
func Refresh(s Store) error {
	if changing, ok := s.(keystore.Changing); ok {
		return changing.Refresh()
	}
	return nil
}
