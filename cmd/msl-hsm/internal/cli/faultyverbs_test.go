//go:build cgo && !nopkcs11

package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// oddCodes are answers that a module may give at any time, and that are of no function in
// particular.
var oddCodes = []uint{
	pkcs11.CKR_CANCEL, pkcs11.CKR_HOST_MEMORY, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_FUNCTION_CANCELED, pkcs11.CKR_SESSION_COUNT, pkcs11.CKR_SESSION_READ_ONLY,
	pkcs11.CKR_TOKEN_WRITE_PROTECTED, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, pkcs11.CKR_OPERATION_ACTIVE, pkcs11.CKR_VENDOR_DEFINED, pkcs11.CKR_VENDOR_DEFINED + 7, ^uint(0),
}

// TestVerbsOnFaultyModules runs verbs on a module of which one function fails, once or always,
// or is slow: they work, or fail in one line that neither says anything of a key nor is written
// for programmers.
func TestVerbsOnFaultyModules(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t)
	t.Parallel()
	lockModule(t)
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	dir := t.TempDir()
	config := filepath.Join(dir, "c.yaml")
	write(t, dir, "c.yaml", fmt.Sprintf("keystore: {uri: %q, pin: \"%s\", wait: 300ms, call-timeout: 1s}\nserver: {state: %s, listen: \"127.0.0.1:0\"}\n",
		(&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), token.PIN, filepath.Join(dir, "s.db")))
	run := func(args string) (code int, out, errs string) {
		var o, e bytes.Buffer
		code = runCheaply(append(strings.Fields(args), "--config", config), strings.NewReader(""), &o, &e)
		return code, o.String(), e.String()
	}
	if code, _, errs := run("key create --set server"); code != 0 {
		t.Fatal(errs)
	}
	n, step := 0, 211
	if os.Getenv("MSL_SOAK") != "" {
		step = 7
	}
	verbs := []string{"key list", "key show msl-identity", "token list", "doctor", "key create extra --algorithm aes128-cbc", "key destroy extra --yes"}
	for _, function := range append([]string{"C_GetSlotInfo", "C_GetMechanismInfo", "C_GetMechanismList", "C_DigestInit", "C_DigestKey"}, serving...) {
		for _, code := range oddCodes {
			for _, fault := range []hsmtest.Fault{{Code: code, Times: 1}, {Code: code}, {Code: code, Skip: 2}, {Delay: 1000}} {
				for _, verb := range verbs {
					if n++; n%step != 0 {
						continue
					}
					fault.Function = function
					m.Inject(fault)
					exit, out, errs := run(verb)
					m.Clear()
					what := fmt.Sprintf("%s, %s = %#x, %d times after %d", verb, function, code, fault.Times, fault.Skip)
					judgeVerb(t, what, fault.Code == 0, exit, out, errs)
				}
			}
		}
	}
	if code, out, errs := run("doctor"); code != 0 {
		t.Errorf("afterwards: %s%s", out, errs)
	}
}

// judgeVerb judges what a verb printed.
func judgeVerb(t *testing.T, what string, slow bool, code int, out, errs string) {
	t.Helper()
	notThere := slow && strings.Contains(errs, "extra") // of a verb before it
	switch {
	case slow && code != 0 && !notThere:
		t.Errorf("%s: slow: exit %d, %s%s", what, code, out, errs)
	case code != 0 && strings.Count(errs, "\n") != 1:
		t.Errorf("%s: exit %d, not one line: %q", what, code, errs)
	case goSpeak.MatchString(errs + out):
		t.Errorf("%s: for programmers: %s%s", what, out, errs)
	case code == 2:
		t.Errorf("%s: taken for a wrong use: %s", what, errs)
	}
	for _, verdict := range []string{"its value can be read", "it can leave the token", "was replaced", "is not the same key"} {
		if strings.Contains(errs+out, verdict) {
			t.Errorf("%s: a verdict on keys: %s%s", what, out, errs)
		}
	}
}
