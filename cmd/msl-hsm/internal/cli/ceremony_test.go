//go:build cgo && !nopkcs11

package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

const interruptedPlan = `title: Interrupted
operator: Grace
witnesses: [Ada]
keys:
- {label: one, algorithm: hmac-sha256}
- {label: two, algorithm: ecdsa-p256}
transcript: transcript.json
`

// TestCeremonyInterrupted has the device fail at a call that makes a key pair, before or after
// it is made. The ceremony is told to be unfinished, goes on with the keys that it has made, or
// is undone.
func TestCeremonyInterrupted(t *testing.T) {
	for place, how := range []string{"--clean-up", "--continue"} {
		for pairs, after := range []bool{false, true} {
			if pairs != place && os.Getenv("MSL_SOAK") == "" {
				continue
			}
			interruptCeremony(t, how, pairs, after)
		}
	}
}

func interruptCeremony(t *testing.T, how string, pairs int, after bool) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	plan := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(plan, []byte(interruptedPlan), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (code int, text string) {
		var out bytes.Buffer
		code = runCheaply(append(args, "--keystore", "pkcs11:token="+token.Label+"?module-path="+m.Path, "--pin", string(token.PIN)), nil, &out, &out)
		return code, out.String()
	}
	m.Inject(hsmtest.Fault{Function: "C_GenerateKeyPair", Skip: pairs, Code: pkcs11.CKR_DEVICE_ERROR, After: after})
	code, text := run("ceremony", plan)
	m.Clear()
	if code == 0 || !strings.Contains(text, "unfinished: go on with --continue, or undo it with --clean-up") {
		t.Fatalf("%s: exit code %d: %s", how, code, text)
	}
	if code, text := run("ceremony", plan); code != 2 || !strings.Contains(text, "was interrupted at key") {
		t.Errorf("%s: once more: exit code %d: %s", how, code, text)
	}
	if err := os.WriteFile(plan, []byte(interruptedPlan+"# changed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, text := run("ceremony", plan, how); code != 2 || !strings.Contains(text, "was changed since the ceremony began") {
		t.Errorf("%s: another plan: exit code %d: %s", how, code, text)
	}
	if err := os.WriteFile(plan, []byte(interruptedPlan), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, text := run("ceremony", plan, how); code != 0 {
		t.Errorf("%s: exit code %d: %s", how, code, text)
	}
	_, text = run("key", "list")
	if kept := strings.Count(text, " 1 "); strings.Contains(text, "ceremony ") != (how == "--continue") || strings.Contains(text, "two ") != (how == "--continue") {
		t.Errorf("%s leaves %d keys:\n%s", how, kept, text)
	}
	if how == "--continue" {
		if code, text := run("ceremony", "verify", filepath.Join(filepath.Dir(plan), "transcript.json"), "--json"); code != 0 || !strings.Contains(text, `"continued"`) {
			t.Errorf("verify: exit code %d: %s", code, text)
		}
	}
}
