//go:build cgo && !nopkcs11

package keys

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	secrets "github.com/msl-hsm/msl-hsm/internal/secret"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/balanced"
)

// openTokens opens several tokens as one key store, each in a separate process if so
// configured.
func openTokens(k *config.Keystore) (Store, error) {
	c := balanced.Config{Prefix: k.Prefix, Log: k.Log, Limit: cmp.Or(k.CallTimeout, 10*time.Second)}
	if k.Isolate {
		c.Limit = -1 // the processes enforce it
	}
	uris, err := tokenURIs(k)
	if err != nil {
		return nil, err
	}
	withPIN := pinForEach(k.PIN)
	for _, uri := range uris {
		c.Tokens = append(c.Tokens, balanced.Token{Name: tokenName(uri), Open: func() (keystore.Store, error) {
			return withPIN(func(source string) (keystore.Store, error) { return openPlace(*k, source, uri) })
		}})
	}
	s, err := balanced.Open(c)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// tokenURIs returns the URIs of several tokens, none of them twice.
func tokenURIs(k *config.Keystore) (all []*hsm.URI, err error) {
	known := map[string]string{}
	for _, token := range k.Tokens {
		uri, err := tokenURI(k, token)
		if err != nil {
			return nil, err
		}
		if before, ok := known[uri.String()]; ok {
			return nil, exit.Usagef("keystore.tokens names a token twice: %s and %s: name another one that holds the same keys", before, token)
		}
		known[uri.String()] = token
		all = append(all, uri)
	}
	return all, nil
}

// pinForEach returns a function that opens a token with a source of the PIN. A source
// that can be read only once, such as a descriptor or a person at the terminal, is read
// for the first token, and the PIN is kept for the others, which may be opened much
// later.
func pinForEach(source string) func(open func(source string) (keystore.Store, error)) (keystore.Store, error) {
	type opening = func(source string) (keystore.Store, error)
	if source != "prompt" && !strings.HasPrefix(source, "fd:") {
		return func(open opening) (keystore.Store, error) { return open(source) }
	}
	read := sync.OnceValues(func() (*lockedmem.Buffer, error) { return readPIN(source) })
	return func(open opening) (keystore.Store, error) {
		pin, err := read()
		if err != nil {
			return nil, err
		}
		r, err := secrets.Pipe(pin.Bytes())
		if errors.As(err, new(secrets.TooLong)) {
			err = exit.WithCode(fmt.Errorf("the PIN: %w", err), exit.Secret)
		}
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return open(fmt.Sprintf("fd:%d", r.Fd()))
	}
}

func openPlace(k config.Keystore, pin string, uri *hsm.URI) (keystore.Store, error) {
	k.URI, k.Tokens, k.PIN = uri.String(), nil, pin
	if k.Log != nil {
		k.Log = k.Log.With("token", tokenName(uri))
	}
	if k.Isolate {
		return openIsolated(&k)
	}
	return openPKCS11(&k)
}

// tokenURI returns the URI of one of several tokens, which may be given as a label.
// Missing parts come from the key store's URI.
func tokenURI(k *config.Keystore, token string) (*hsm.URI, error) {
	common, uri := &hsm.URI{}, &hsm.URI{Token: token}
	var err error
	if k.URI != "" {
		if common, err = hsm.ParseURI(k.URI); err != nil {
			return nil, exit.Usagef("keystore.uri: %w; with keystore.tokens write pkcs11:?module-path=/path/to/module.so", err)
		}
	}
	if common.Token != "" || common.Serial != "" || common.SlotID != "" {
		return nil, exit.Usagef("keystore.uri names a token, and keystore.tokens does too: write keystore.uri without it, as in pkcs11:?module-path=/path/to/module.so")
	}
	if config.IsPKCS11(token) {
		if uri, err = hsm.ParseURI(token); err != nil {
			return nil, exit.Usagef("keystore.tokens: %s: %w; write a label, or pkcs11:serial=NUMBER", token, err)
		}
	}
	if uri.ModulePath == "" && uri.ModuleName == "" {
		uri.ModulePath, uri.ModuleName = common.ModulePath, common.ModuleName
	}
	if uri.PINSource == "" {
		uri.PINSource = common.PINSource
	}
	return uri, nil
}

// tokenName names a token in logs, by what distinguishes it from others.
func tokenName(uri *hsm.URI) string {
	short := *uri
	short.ModulePath, short.ModuleName, short.PINSource = "", "", ""
	if short.String() == (&hsm.URI{Token: uri.Token}).String() {
		return uri.Token
	}
	return strings.TrimPrefix(short.String(), "pkcs11:")
}

// eachToken calls f with the store of each token.
func eachToken(s Store, f func(token string, device keystore.Store)) {
	device := deviceOf(s)
	if all, ok := device.(*balanced.Store); ok {
		all.Each(f)
		return
	}
	f("", device)
}
