//go:build cgo && !nopkcs11

package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/keystore/split"
	"github.com/msl-hsm/msl-hsm/softhsm"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// Providers returns the kinds of key stores that this build supports.
func Providers() []keystore.Provider {
	return []keystore.Provider{hsm.Provider(), split.Provider(), tpm.Provider(), soft.Provider()}
}

func keyWeaknesses() []string { return hsm.KeyWeaknesses() }

func openPKCS11(k *config.Keystore) (Store, error) {
	s, err := openToken(k)
	if err != nil {
		return nil, err
	}
	makeWay(s.Stats().Latency)
	return s, nil
}

func openToken(k *config.Keystore) (*hsm.Store, error) {
	if err := checkWeaknesses(k.AllowWeak); err != nil {
		return nil, err
	}
	if err := CheckSoftHSM(k); err != nil {
		return nil, err
	}
	uri, err := Resolve(k)
	if err != nil {
		return nil, err
	}
	pin, err := pin(k)
	if err != nil {
		return nil, err
	}
	s, err := hsm.Open(hsm.Config{
		URI: uri.String(), Initialize: k.Initialize, PIN: pin, Sessions: int(k.Sessions), Wait: k.Wait, CallTimeout: k.CallTimeout,
		SealPrefix: k.Prefix, TrustedWrapping: k.TrustedWrap, SessionsElsewhere: k.SessionKeys == config.SessionsInMemory, AllowWeak: k.AllowWeak, Log: k.Log, Calls: k.Calls,
	})
	if err != nil {
		return nil, NoToken(k, err)
	}
	return s, nil
}

// checkPKCS11 finds what is wrong with the settings of tokens.
func checkPKCS11(k *config.Keystore) error {
	if err := checkWeaknesses(k.AllowWeak); err != nil {
		return err
	}
	if len(k.Tokens) > 0 {
		_, err := tokenURIs(k)
		return err
	}
	uri, err := parseURI(k)
	if err == nil && k.SoftHSM == "" {
		err = checkModule(uri)
	}
	return err
}

// checkWeaknesses refuses unknown names of weaknesses.
func checkWeaknesses(names []string) error {
	for _, name := range names {
		if _, known := hsm.Weaknesses()[name]; !known {
			return exit.Usagef("keystore.allow-weak: no weakness is named %q: msl-hsm key show names those of a key; want some of %s", name, exit.List(slices.Sorted(maps.Keys(hsm.Weaknesses()))))
		}
	}
	return nil
}

// NoToken adds the next step to the error of a missing token.
func NoToken(k *config.Keystore, err error) error {
	var none *hsm.NoTokenError
	switch {
	case !errors.As(err, &none):
		return err
	case hasMore(k.SoftHSM, len(none.Tokens)):
		return fmt.Errorf("%w; SoftHSM cannot read a token that is in %s: look at the permissions there, or restore it from a backup, and make no other token in its place", err, filepath.Join(k.SoftHSM, "tokens"))
	case len(none.Tokens) == 0:
		return fmt.Errorf("%w; make one with %s", err, tokenInit(k, none.URI))
	}
	return fmt.Errorf("%w; correct the URI, or make such a token with %s", err, tokenInit(k, none.URI))
}

// hasMore reports whether a directory of SoftHSM may have more tokens than SoftHSM found there.
func hasMore(dir string, found int) bool {
	if dir == "" {
		return false
	}
	all, err := os.ReadDir(filepath.Join(dir, "tokens"))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	return len(slices.DeleteFunc(all, func(e fs.DirEntry) bool { return !e.IsDir() })) > found
}

// tokenInit is the command that makes a token matching a URI, as far as possible.
func tokenInit(k *config.Keystore, text string) string {
	uri, err := hsm.ParseURI(text)
	if err != nil {
		return "msl-hsm token init"
	}
	label := ""
	if uri.Token != "" {
		label = " --label " + exit.Quoted(uri.Token)
	}
	if k.SoftHSM != "" {
		return "msl-hsm token init --softhsm " + exit.Quoted(k.SoftHSM) + label
	}
	if label == "" {
		label = " --label NAME"
	}
	module := hsm.URI{ModulePath: uri.ModulePath, ModuleName: uri.ModuleName}
	return "msl-hsm token init --keystore " + exit.Quoted(module.String()) + label
}

// ResolveOne is Resolve for operations on one particular token, instead of any that
// happens to exist.
func ResolveOne(k *config.Keystore) (*hsm.URI, error) {
	if len(k.Tokens) > 0 {
		return nil, exit.Usagef("keystore.tokens names %d tokens: say which of them is meant, with --keystore and its URI, such as pkcs11:token=NAME", len(k.Tokens))
	}
	return Resolve(k)
}

// Resolve returns the URI of the token. If a SoftHSM directory is configured, the URI
// need not name the module.
func Resolve(k *config.Keystore) (*hsm.URI, error) {
	uri, err := parseURI(k)
	if err != nil {
		return nil, err
	}
	if k.SoftHSM != "" {
		if err := UseSoftHSM(k, uri); err != nil {
			return nil, err
		}
	}
	uri.Initialize = k.Initialize
	return uri, checkModule(uri)
}

func parseURI(k *config.Keystore) (*hsm.URI, error) {
	if k.URI == "" {
		return &hsm.URI{}, nil
	}
	uri, err := hsm.ParseURI(k.URI)
	if err != nil {
		return nil, exit.Usagef("key store: %w; write pkcs11:token=NAME?module-path=/path/to/module.so; keys without a token are soft:FILE or tpm:?state=FILE", err)
	}
	return uri, nil
}

func checkModule(uri *hsm.URI) error {
	if uri.ModulePath == "" && uri.ModuleName == "" {
		return exit.Usagef("key store %s names no module: add ?module-path=/path/to/module.so", uri)
	}
	return nil
}

// CheckSoftHSM requires a directory of tokens, which only token init makes: what the
// first use would create there is not a token.
func CheckSoftHSM(k *config.Keystore) error {
	if k.SoftHSM == "" {
		return nil
	}
	missing := "no directory"
	if info, err := os.Stat(k.SoftHSM); err == nil && info.IsDir() {
		missing = "no token in the directory"
	}
	_, err := os.ReadDir(filepath.Join(k.SoftHSM, "tokens")) // of which SoftHSM would say CKR_GENERAL_ERROR
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(filepath.Join(k.SoftHSM, "softhsm2.conf"))
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		err = fmt.Errorf("there is %s %s: correct the path, or make a token there with msl-hsm token init --softhsm %s", missing, k.SoftHSM, exit.Quoted(k.SoftHSM))
	}
	return exit.WithCode(err, exit.Keystore)
}

// UseSoftHSM makes this process use the SoftHSM configuration in the directory.
func UseSoftHSM(k *config.Keystore, uri *hsm.URI) error {
	module, err := softhsm.FindModule()
	if err != nil {
		return exit.WithCode(err, exit.Keystore)
	}
	if _, err := softhsm.Configure(k.SoftHSM); err != nil {
		return exit.WithCode(err, exit.Keystore)
	}
	if uri.ModulePath == "" && uri.ModuleName == "" {
		uri.ModulePath = module
	}
	return nil
}

// StatsOf returns figures about the tokens of a store.
func StatsOf(s Store) (all []DeviceStats) {
	eachToken(s, func(token string, device keystore.Store) {
		switch device := device.(type) {
		case *hsm.Store:
			st := device.Stats()
			all = append(all, DeviceStats{Token: token, Open: st.Sessions, InUse: st.InUse, Objects: st.Objects, Epoch: st.Epoch})
		case *isolated.Store:
			if st, ok := device.Device(); ok {
				all = append(all, DeviceStats{Token: token, Open: st.Open, InUse: st.InUse, Objects: st.Objects, Epoch: st.Epoch})
			}
		}
	})
	return all
}

// rereadPIN reads the PIN again if it is in a file.
func rereadPIN(c *config.Keystore, s Store) error {
	if !isFile(c.PIN) {
		return nil
	}
	source, err := pin(c)
	if err != nil {
		return err
	}
	var errs []error
	eachToken(s, func(_ string, device keystore.Store) {
		switch device := device.(type) {
		case *hsm.Store:
			errs = append(errs, device.RenewPIN(source))
		case *isolated.Store:
			errs = append(errs, renewIsolated(c, device))
		}
	})
	return errors.Join(errs...)
}

// PINSource returns the source of the user's PIN: from the configuration, or else the
// URI. It is empty if neither has one.
func PINSource(k *config.Keystore, uri *hsm.URI) (string, error) {
	source, err := pin(k)
	if err != nil || source != "" || uri.PINSource == "" {
		return string(source), err
	}
	if source, err = hsm.ParsePINSource(uri.PINSource); err != nil {
		return "", exit.Usagef("pin-source of the URI: %w", err)
	}
	return string(source), nil
}

// pin returns the source of the PIN; only package hsm sees the PIN itself.
func pin(k *config.Keystore) (hsm.PINSource, error) {
	if k.PIN == "" {
		return "", nil
	}
	s, err := parseSource(k.PIN)
	if err != nil {
		return "", exit.Usagef("source of the PIN: %w", err)
	}
	return hsm.PINSource(s), nil
}
