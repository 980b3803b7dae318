//go:build cgo && !nopkcs11

package serverside

import (
	"os"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// imitated is what a server makes of modules that nobody here has, as docs/hsm.md says.
var imitated = map[string]struct {
	allow   []string
	refused string // part of the error, or ""
	memory  bool   // with the session keys in memory it is not
}{
	"AWS CloudHSM, Client SDK 5": {allow: []string{"copyable"}},
	"AWS CloudHSM, Client SDK 3": {allow: []string{"copyable"}},
	"Thales Luna 7":              {},
	"YubiHSM 2":                  {refused: "a server needs session objects, which the vendor would have to add", memory: true},
	"Google Cloud KMS":           {refused: "the module cannot do it (hsm: C_GenerateKey: CKR_MECHANISM_INVALID)"},
}

// TestImitated runs a server over each: a device with pre-shared keys exchanges keys, and
// comes back with its token, whose session keys are sealed.
func TestImitated(t *testing.T) {
	docs, err := os.ReadFile("../../../../docs/hsm.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, im := range hsmtest.Imitations() {
		want, known := imitated[im.Name]
		if !known || !strings.Contains(string(docs), "| "+im.Name+" | imitated |") {
			t.Errorf("%s: no expectation here, or no row in docs/hsm.md", im.Name)
		}
		if want.refused == "" && i > 0 && os.Getenv("MSL_SOAK") == "" {
			continue // one serves for all
		}
		t.Run(im.Name, func(t *testing.T) {
			token := softhsm.Temp(t)
			m := hsmtest.New(t, token.Module)
			m.Inject(im.Faults...)
			c := config.Default()
			c.Keystore.URI, c.Keystore.PIN = (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), string(token.PIN)
			serveImitated(t, c, want.allow, want.refused)
			if want.memory && os.Getenv("MSL_SOAK") != "" { // the command's tests do that every day
				c.Keystore.SessionKeys, c.Server.Custody = config.SessionsInMemory, "imported"
				serveImitated(t, c, nil, "")
			}
		})
	}
}

func serveImitated(t *testing.T, c *config.Config, allow []string, refused string) {
	store, err := keys.Open(c)
	if (len(allow) > 0 || refused != "") && err == nil {
		store.Close()
		t.Fatal("it is taken as it is")
	}
	if refused != "" {
		if text := err.Error(); !strings.Contains(text, refused) || strings.Contains(text, "\n") {
			t.Errorf("refused with %v, want %q", err, refused)
		}
		return
	}
	if len(allow) > 0 {
		c.Keystore.AllowWeak = allow
		store, err = keys.Open(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	set, err := keys.KeySet("server", c.Keystore.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Complete(store, set, false, func(string, keys.Provision, uint32) {}); err != nil {
		t.Fatal(err)
	}
	r, err := Rehearse(c, store)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, exchange := range []string{"SYMMETRIC_WRAPPED", "ASYMMETRIC_WRAPPED"} {
		if err := r.Try(t.Context(), c, exchange); err != nil {
			t.Errorf("%s: %v", exchange, err)
		}
	}
}
