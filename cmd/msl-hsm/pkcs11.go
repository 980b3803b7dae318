//go:build cgo && !nopkcs11

// PKCS #11 needs a C compiler. What uses it is here, in token_init.go and in
// token_list.go; a build without it has nopkcs11.go instead.

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/softhsm"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// providers are the places for keys that this build has.
func providers() []keystore.Provider {
	return []keystore.Provider{hsm.Provider(), tpm.Provider(), soft.Provider()}
}

func (p *program) token() *cobra.Command {
	return group("token", "Make and list PKCS #11 tokens", p.tokenInit(), p.tokenList())
}

// openPKCS11 opens the keys in a token.
func (k *keystoreConfig) openPKCS11() (keys, error) {
	uri, err := k.resolve()
	if err != nil {
		return nil, err
	}
	pin, err := k.pin()
	if err != nil {
		return nil, err
	}
	s, err := hsm.Open(hsm.Config{
		URI: uri.String(), PIN: pin, Sessions: k.Sessions, Wait: k.Wait, CallTimeout: k.CallTimeout,
		SealPrefix: k.Prefix, AllowWeak: k.AllowWeak, Log: k.log,
	})
	if err != nil {
		return nil, noToken(err)
	}
	return s, nil
}

// noToken adds the next step to the error of a token that is not there.
func noToken(err error) error {
	var none *hsm.NoTokenError
	switch {
	case !errors.As(err, &none):
		return err
	case len(none.Tokens) == 0:
		return fmt.Errorf("%w; make one with msl-hsm token init", err)
	}
	return fmt.Errorf("%w; correct the URI, or make such a token with msl-hsm token init", err)
}

// resolve returns the URI of the token. With a SoftHSM directory the module goes
// without saying.
func (k *keystoreConfig) resolve() (*hsm.URI, error) {
	uri := &hsm.URI{}
	if k.URI != "" {
		var err error
		if uri, err = hsm.ParseURI(k.URI); err != nil {
			return nil, usagef("key store: %w; write pkcs11:token=NAME?module-path=/path/to/module.so; keys without a token are soft:FILE or tpm:?state=FILE", err)
		}
	}
	if k.SoftHSM != "" {
		if err := k.useSoftHSM(uri); err != nil {
			return nil, err
		}
	}
	if uri.ModulePath == "" && uri.ModuleName == "" {
		return nil, usagef("key store %s names no module: add ?module-path=/path/to/module.so", uri)
	}
	return uri, nil
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
