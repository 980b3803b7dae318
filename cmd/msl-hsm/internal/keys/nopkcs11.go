//go:build !cgo || nopkcs11

// The small build: no PKCS #11, and no C compiler needed. This file replaces pkcs11.go.

package keys

import (
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// Providers returns the kinds of key stores that this build supports.
func Providers() []keystore.Provider {
	return []keystore.Provider{tpm.Provider(), soft.Provider()}
}

func keyWeaknesses() []string { return nil }

func checkPKCS11(*config.Keystore) error { return NoPKCS11() }

func openPKCS11(*config.Keystore) (Store, error) { return nil, NoPKCS11() }

func openIsolated(*config.Keystore) (Store, error) { return nil, NoPKCS11() }

func openTokens(*config.Keystore) (Store, error) { return nil, NoPKCS11() }

// ServeIsolated is the work of the process that holds a key store for another one.
func ServeIsolated() error { return NoPKCS11() }

// NoPKCS11 says what this build lacks.
func NoPKCS11() error {
	return exit.Usagef("this msl-hsm was built without PKCS #11: its key stores are soft:FILE and tpm:?state=FILE; " +
		"build one with PKCS #11 where there is a C compiler: CGO_ENABLED=1 go build ./cmd/msl-hsm")
}

// MakeWay does nothing: there is no token.
func MakeWay(Store) (end func()) { return func() {} }

// StatsOf returns nothing: there is no token.
func StatsOf(Store) []DeviceStats { return nil }

// rereadPIN does nothing: there is no token.
func rereadPIN(*config.Keystore, Store) error { return nil }
