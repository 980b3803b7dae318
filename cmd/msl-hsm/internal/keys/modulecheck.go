//go:build cgo && !nopkcs11

package keys

import (
	"cmp"
	"os/exec"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/hsm/modulecheck"
)

// ModuleCheck says how to test the module of a key store, with processes that run a
// hidden verb of this program. The caller must close the PIN.
func ModuleCheck(k *config.Keystore, verb string) (modulecheck.Config, error) {
	none := modulecheck.Config{}
	if err := CheckSoftHSM(k); err != nil {
		return none, err
	}
	uri, err := ResolveOne(k)
	if err != nil {
		return none, err
	}
	if uri.ModulePath == "" {
		return none, exit.Usagef("key store %s names no module-path: add ?module-path=/path/to/module.so", uri)
	}
	pin, err := readPIN(cmp.Or(k.PIN, uri.PINSource))
	if err != nil {
		return none, err
	}
	uri.PINSource = ""
	return modulecheck.Config{
		URI: uri.String(), Initialize: k.Initialize, PIN: pin, Wait: k.Wait, CallTimeout: k.CallTimeout,
		Command: func() *exec.Cmd { return ownCommand(verb) },
	}, nil
}
