//go:build cgo && !nopkcs11

package cli

import (
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestPINVerbs has tokens that need another PIN: package hsm says what is needed, and the command by
// which verb.
func TestPINVerbs(t *testing.T) {
	lockModule(t)
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	for code, want := range map[uint]string{
		pkcs11.CKR_PIN_LOCKED:               "the token's security officer sets a new one with msl-hsm token pin unblock",
		pkcs11.CKR_USER_PIN_NOT_INITIALIZED: "the security officer sets the first one with msl-hsm token pin set",
		pkcs11.CKR_PIN_EXPIRED:              "the token requires a new PIN first: change it with msl-hsm token pin change",
	} {
		m.Inject(hsmtest.Fault{Function: "C_Login", Code: code})
		_, err := hsm.Open(c)
		if err == nil || strings.Contains(err.Error(), "msl-hsm ") || !strings.Contains(exit.OneLine(err), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}
