package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// keys are a key store with all that a set-up command needs.
type keys interface {
	keystore.Store
	keystore.Importer
	keystore.Admin
	Live() (objects, sessions int)
}

// openKeys opens the configured key store.
func (c *config) openKeys() (keys, error) {
	uri, err := c.Keystore.resolve()
	if err != nil {
		return nil, err
	}
	if path, ok := strings.CutPrefix(uri, "soft:"); ok {
		return c.openSoft(path, secret, soft.Open)
	}
	pin, err := c.Keystore.pin()
	if err != nil {
		return nil, err
	}
	s, err := hsm.Open(hsm.Config{
		URI: uri, PIN: pin, Sessions: c.Keystore.Sessions, Wait: c.Keystore.Wait,
		SealPrefix: c.Keystore.Prefix, AllowWeak: c.Keystore.AllowWeak,
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// makeKeys opens the key store, and makes the file of soft keys if there is none.
func (c *config) makeKeys() (keys, error) {
	path, isSoft := strings.CutPrefix(c.Keystore.URI, "soft:")
	if !isSoft {
		return c.openKeys()
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return c.openSoft(path, newSecret, soft.Create)
	}
	return c.openSoft(path, secret, soft.Open)
}

func (c *config) openSoft(path string, ask func(source, what string) ([]byte, error), open func(string, []byte) (*soft.Store, error)) (keys, error) {
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
	defer clear(passphrase)
	s, err := open(path, passphrase)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// resolve returns the URI of the key store. With a SoftHSM directory the module
// goes without saying.
func (k *keystoreConfig) resolve() (string, error) {
	if strings.HasPrefix(k.URI, "soft:") {
		return k.URI, nil
	}
	if k.URI == "" && k.SoftHSM == "" {
		return "", usagef("no key store: give --keystore URI, or keystore.uri in the configuration")
	}
	uri := &hsm.URI{}
	if k.URI != "" {
		var err error
		if uri, err = hsm.ParseURI(k.URI); err != nil {
			return "", usagef("key store: %w; write pkcs11:token=NAME?module-path=/path/to/module.so or soft:FILE", err)
		}
	}
	if k.SoftHSM != "" {
		if err := k.useSoftHSM(uri); err != nil {
			return "", err
		}
	}
	if uri.ModulePath == "" && uri.ModuleName == "" {
		return "", usagef("key store %s names no module: add ?module-path=/path/to/module.so", uri)
	}
	return uri.String(), nil
}

// useSoftHSM makes the directory's configuration that of this process.
func (k *keystoreConfig) useSoftHSM(uri *hsm.URI) error {
	module, err := softhsm.FindModule()
	if err != nil {
		return coded{err, exitKeystore}
	}
	if _, err := softhsm.Configure(k.SoftHSM); err != nil {
		return coded{err, exitKeystore}
	}
	if uri.ModulePath == "" && uri.ModuleName == "" {
		uri.ModulePath = module
	}
	return nil
}

// pin is the source of the PIN; the PIN itself only package hsm sees.
func (k *keystoreConfig) pin() (hsm.PINSource, error) {
	if k.PIN == "" {
		return "", nil
	}
	s, err := parseSource(k.PIN)
	if err != nil {
		return "", usagef("source of the PIN: %w", err)
	}
	return hsm.PINSource(s), nil
}

// keyIDOf names a public key: the start of the hash of its PKIX form. Both
// sides of a conversation can compute it, so nobody has to agree on a name.
func keyIDOf(public any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:8]), nil
}

// missing adds the next step to the error of a key that is not there.
func missing(err error, next string) error {
	if errors.Is(err, keystore.ErrNotFound) {
		return fmt.Errorf("%w; %s", err, next)
	}
	return err
}
