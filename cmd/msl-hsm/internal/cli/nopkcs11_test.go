//go:build !cgo || nopkcs11

package cli

import (
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
)

const withPKCS11 = false

func cloneToken(dir, label, other string) error { return keys.NoPKCS11() }

func findSoftHSM() error { return keys.NoPKCS11() }

func imitate(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(keys.NoPKCS11()) }
