//go:build cgo && !nopkcs11

package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
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
// it is made. The ceremony is reported as unfinished, continues with the keys that it has made, or
// is undone.
func TestCeremonyInterrupted(t *testing.T) {
	skipWithRace(t)
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
		code = runCheaply(append(args, "--keystore", (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), "--pin", string(token.PIN)), nil, &out, &out)
		return code, out.String()
	}
	m.Inject(hsmtest.Fault{Function: "C_GenerateKeyPair", Skip: pairs, Code: pkcs11.CKR_DEVICE_ERROR, After: after})
	code, text := run("ceremony", plan)
	m.Clear()
	if code == 0 || !strings.Contains(text, "unfinished: resume it with --continue, or undo it with --clean-up") {
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

// A heldCeremony is one on a token for tests.
type heldCeremony struct {
	*testing.T
	token      *softhsm.Token
	plan       string
	transcript string
}

func newCeremony(t *testing.T) *heldCeremony {
	dir := t.TempDir()
	x := &heldCeremony{t, softhsm.Temp(t), filepath.Join(dir, "plan.yaml"), filepath.Join(dir, "transcript.json")}
	x.write(x.plan, interruptedPlan)
	return x
}

func (x *heldCeremony) write(path, text string) {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		x.Fatal(err)
	}
}

func (x *heldCeremony) read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		x.Fatal(err)
	}
	return string(text)
}

// want runs a command, and wants its exit code and a part of what it says.
func (x *heldCeremony) want(code int, part string, args ...string) {
	x.Helper()
	var out bytes.Buffer
	args = append(args, "--keystore", x.token.URI, "--pin", string(x.token.PIN))
	if got := runCheaply(args, nil, &out, &out); got != code || !strings.Contains(out.String(), part) {
		x.Errorf("%v: exit code %d, want %d and %q: %s", args[:3], got, code, part, out.String())
	}
}

// journal is what was noted before a ceremony ended, with one thing changed.
func (x *heldCeremony) journal(old, changed string) {
	var signed signedTranscript
	if err := json.Unmarshal([]byte(x.read(x.transcript)), &signed); err != nil {
		x.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, signed.Transcript); err != nil || !strings.Contains(compact.String(), old) {
		x.Fatalf("no %s in %s: %v", old, compact.String(), err)
	}
	x.write(x.transcript+".unfinished", strings.Replace(compact.String(), old, changed, 1))
}

// TestCeremonyJournalChanged has somebody change what is noted of a ceremony that was interrupted.
// That must neither be signed nor choose what is destroyed.
func TestCeremonyJournalChanged(t *testing.T) {
	skipWithRace(t)
	x := newCeremony(t)
	x.want(0, "wrote ", "ceremony", x.plan)
	x.want(0, "", "key", "create", "precious", "--algorithm", "hmac-sha256")
	whole := x.read(x.transcript)
	for _, c := range []struct{ old, changed, want string }{
		{`"label":"two"`, `"label":"precious"`, "is not what this ceremony wrote"},
		{`"label":"one","version":1`, `"label":"one","version":2`, `the key "one" is not as it was`},
		{`"check_value":"`, `"check_value":"0`, `the key "one" is not as it was`},
		{`BEGIN PUBLIC KEY-----\nM`, `BEGIN PUBLIC KEY-----\nN`, `the key "ceremony" is not as it was`},
		{`"keys":[`, `"keys":[{"label":"precious"},`, "is not what this ceremony wrote"},
		{`"local":true`, `"local":false`, "is not as it was"},
	} {
		x.write(x.transcript, whole)
		x.journal(c.old, c.changed)
		if err := os.Remove(x.transcript); err != nil {
			t.Fatal(err)
		}
		x.want(1, c.want, "ceremony", "--continue", x.plan)
		x.want(1, c.want, "ceremony", "--clean-up", x.plan)
	}
	x.want(0, "precious", "key", "list")
	x.want(0, "two ", "key", "list")
	x.write(x.transcript, whole)
	x.journal(`"serial":"`, `"serial":"0`)
	x.want(2, `the ceremony began with the token`, "ceremony", "--continue", x.plan)
	x.journal(`"operator":"Grace"`, `"operator":"Mallory"`)
	if err := os.Remove(x.transcript); err != nil {
		t.Fatal(err)
	}
	x.want(0, "wrote ", "ceremony", "--continue", x.plan)
	x.want(0, "operator:  Grace", "ceremony", "verify", x.transcript)
}

// TestCeremonyEnds has a ceremony be killed after its transcript was written: --continue ends it.
func TestCeremonyEnds(t *testing.T) {
	skipWithRace(t)
	x := newCeremony(t)
	x.want(0, "wrote ", "ceremony", x.plan)
	x.journal(`"title"`, `"title"`)
	x.want(2, "finish that ceremony with --continue", "ceremony", x.plan)
	x.want(2, "finish that ceremony with --continue", "ceremony", "--clean-up", x.plan)
	whole := x.read(x.transcript)
	x.want(0, "wrote ", "ceremony", "--continue", x.plan)
	if x.read(x.transcript) != whole {
		t.Error("the transcript is another one")
	}
	x.want(2, "name another in the file", "ceremony", x.plan)

	// Nothing unsigned may be in the file.
	for _, changed := range []string{
		strings.Replace(whole, "{", `{"approved": true,`, 1),
		strings.Replace(whole, "{", `{"transcript": {"title": "x"},`, 1),
		strings.Replace(whole, `"transcript"`, `"Transcript"`, 1),
		strings.Replace(whole, "Grace", "Mallory", 1),
		strings.Replace(whole, "hmac-sha256", "aes128-cbc", 1),
		strings.Replace(whole, `"witnesses"`, `"witness"`, 1),
	} {
		x.write(x.transcript, changed)
		x.want(1, "is wrong: it was changed", "ceremony", "verify", x.transcript)
	}
}

// TestCeremonyTwice has another ceremony of the same file under way: the second does nothing.
func TestCeremonyTwice(t *testing.T) {
	plan := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(plan, []byte(interruptedPlan), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := holdPlan(plan)
	if err != nil {
		t.Fatal(err)
	}
	run := func() (code int, text string) {
		var out bytes.Buffer
		code = runCheaply([]string{"ceremony", plan, "--keystore", "pkcs11:token=x?module-path=/nowhere.so", "--pin", "file:/nowhere"}, nil, &out, &out)
		return code, out.String()
	}
	if code, text := run(); code != 2 || !strings.Contains(text, "another msl-hsm ceremony of "+plan+" is under way") {
		t.Errorf("exit code %d: %s", code, text)
	}
	other.Close()
	if code, text := run(); code == 0 || strings.Contains(text, "another msl-hsm") {
		t.Errorf("afterwards: exit code %d: %s", code, text)
	}
}
