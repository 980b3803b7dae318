//go:build cgo && !nopkcs11

package cli

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
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

// imitate DIR NAME puts a module into a directory that imitates the one of that name, over
// SoftHSM, or one whose security officer can mark the keys that are there.
func imitate(ts *testscript.TestScript, _ bool, args []string) {
	module, err := softhsm.FindModule()
	ts.Check(err)
	ts.Check(os.Mkdir(ts.MkAbs(args[0]), 0o700))
	m, err := hsmtest.Build(ts.MkAbs(args[0]), module)
	ts.Check(err)
	if args[1] == "officer" {
		m.Inject(hsmtest.Fault{OfficerTrusts: true})
		return
	}
	for _, im := range hsmtest.Imitations() {
		if strings.Contains(im.Name, args[1]) {
			m.Inject(im.Faults...)
			return
		}
	}
	ts.Fatalf("nobody imitates %s", args[1])
}
