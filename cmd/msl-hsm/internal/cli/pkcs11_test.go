//go:build cgo && !nopkcs11

package cli

import (
	"path/filepath"

	"github.com/msl-hsm/msl-hsm/softhsm"
)

const withPKCS11 = true

// cloneToken copies a SoftHSM token of a directory to another one there.
func cloneToken(dir, label, other string) error {
	t := softhsm.Token{Config: filepath.Join(dir, "softhsm2.conf"), Label: label}
	_, err := t.Clone(other)
	return err
}

// findSoftHSM says why there is no token for tests, if there is none.
func findSoftHSM() error {
	_, err := softhsm.FindModule()
	return err
}
