//go:build cgo && !nopkcs11

package cli

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// Errors of the library, and what to type next.
func TestAdvice(t *testing.T) {
	for want, err := range map[string]error{
		"hsm: no initialized PKCS #11 token matches pkcs11:token=a (the module has none); make one with msl-hsm token init --softhsm 'a b' --label a":                                      &hsm.NoTokenError{URI: "pkcs11:token=a"},
		`hsm: no initialized PKCS #11 token matches pkcs11:token=a (the module has "b" serial 1); correct the URI, or make such a token with msl-hsm token init --softhsm 'a b' --label a`: &hsm.NoTokenError{URI: "pkcs11:token=a", Tokens: []string{`"b" serial 1`}},
		"another": fmt.Errorf("another"),
	} {
		if got := keys.NoToken(&config.Keystore{SoftHSM: "a b"}, err); got.Error() != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	c := &config.Config{}
	c.Keystore.URI = "pkcs11:token=dev"
	all := noteOldKeys(c, []keystore.Info{{Label: "a", Notes: []string{"older-template: make a new version", "untold-template: nothing"}}})
	if !strings.HasSuffix(all[0].Notes[0], "--rotate, for another key with msl-hsm key create or key import, as it was made") || !slices.Contains(all[0].Notes, "untold-template: nothing") {
		t.Errorf("notes %q", all[0].Notes)
	}
}
