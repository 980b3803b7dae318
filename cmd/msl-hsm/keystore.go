package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// keys are a key store with all that a set-up command needs.
type keys interface {
	keystore.Store
	keystore.Importer
	keystore.Admin
	Live() (objects, sessions int)
}

// openKeys opens the configured key store.
func openKeys(c *config) (keys, error) {
	if path, ok := strings.CutPrefix(c.Keystore.URI, "soft:"); ok {
		return openSoft(c, path, secret, soft.Config{SealPrefix: c.Keystore.Prefix}.Open)
	}
	if strings.HasPrefix(c.Keystore.URI, "tpm:") {
		return openTPM(c, tpm.OpenStore)
	}
	if c.Keystore.URI == "" && c.Keystore.SoftHSM == "" {
		return nil, usagef("no key store: give --keystore URI, or keystore.uri in the configuration")
	}
	return openPKCS11(&c.Keystore)
}

// makeKeys opens the key store, and makes the file of soft keys if there is none.
func makeKeys(c *config) (keys, error) {
	if strings.HasPrefix(c.Keystore.URI, "tpm:") {
		return makeTPM(c)
	}
	path, isSoft := strings.CutPrefix(c.Keystore.URI, "soft:")
	if !isSoft {
		return openKeys(c)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return openSoft(c, path, newSecret, soft.Config{SealPrefix: c.Keystore.Prefix}.Create)
	}
	return openSoft(c, path, secret, soft.Config{SealPrefix: c.Keystore.Prefix}.Open)
}

func openSoft(c *config, path string, ask func(source, what string) (*lockedmem.Buffer, error), open func(string, []byte) (*soft.Store, error)) (keys, error) {
	if path == "" {
		return nil, usagef("key store soft: names no file: write soft:FILE")
	}
	if c.Keystore.PIN == "" {
		return nil, usagef("no passphrase for the keys in %s: name its source with --pin file:PATH, or pin: in the configuration", path)
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

// missing adds the next step to the error of a key that is not there.
func missing(err error, next string) error {
	if errors.Is(err, keystore.ErrNotFound) {
		return fmt.Errorf("%w; %s", err, next)
	}
	return err
}
