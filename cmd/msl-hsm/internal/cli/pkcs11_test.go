//go:build cgo && !nopkcs11

package cli

import (
	"github.com/msl-hsm/msl-hsm/softhsm"
)

const withPKCS11 = true

// findSoftHSM says why there is no token for tests, if there is none.
func findSoftHSM() error {
	_, err := softhsm.FindModule()
	return err
}
