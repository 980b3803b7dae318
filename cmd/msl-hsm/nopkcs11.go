//go:build !cgo || nopkcs11

// The small build: no PKCS #11, and no C compiler needed. This file stands in for
// pkcs11.go, token_init.go and token_list.go.

package main

import (
	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// providers are the places for keys that this build has.
func providers() []keystore.Provider {
	return []keystore.Provider{tpm.Provider(), soft.Provider()}
}

// token stays in the list of verbs, to say why it does nothing.
func tokenCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:                "token",
		Short:              "Not in this build, which has no PKCS #11",
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
		Args:               cobra.ArbitraryArgs,
		RunE:               func(*cobra.Command, []string) error { return noPKCS11() },
	}
}

func openPKCS11(k *keystoreConfig) (keys, error) { return nil, noPKCS11() }

func noPKCS11() error {
	return usagef("this msl-hsm was built without PKCS #11: its key stores are soft:FILE and tpm:?state=FILE; " +
		"build one with PKCS #11 where there is a C compiler: CGO_ENABLED=1 go build ./cmd/msl-hsm")
}
