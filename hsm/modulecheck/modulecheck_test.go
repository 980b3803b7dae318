package modulecheck

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

const childVariable = "MODULECHECK_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		flag.Set("test.short", "true") // a few vectors of each kind
		if Serve() != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// config is the test of a module on a throwaway token.
func config(t *testing.T, token *softhsm.Token, module string) Config {
	t.Helper()
	path, _ := strings.CutPrefix(string(token.PIN), "file:")
	pin, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	buffer := lockedmem.Copy(pin)
	t.Cleanup(buffer.Close)
	return Config{
		URI: (&hsm.URI{Token: token.Label, ModulePath: module}).String(), PIN: buffer, Command: func() *exec.Cmd {
			c := exec.Command(os.Args[0])
			c.Env, c.Stderr = append(os.Environ(), childVariable+"=1"), os.Stderr
			return c
		},
	}
}

// openToken opens the same token in this process.
func openToken(t *testing.T, token *softhsm.Token) *hsm.Store {
	t.Helper()
	s, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func labels(t *testing.T, s *hsm.Store) []string {
	t.Helper()
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var labels []string
	for _, k := range all {
		labels = append(labels, k.Label)
	}
	return labels
}

// TestSoftHSM asks that nothing but what is known is wrong with SoftHSM, that both programs
// use each other's pairs, and that the keys of its owner are all that is in the token then.
func TestSoftHSM(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the whole suite")
	}
	token := softhsm.Temp(t)
	s := openToken(t, token)
	if _, err := s.Create("own", keystore.AES128CBC); err != nil {
		t.Fatal(err)
	}
	report, err := Run(t.Context(), config(t, token, token.Module))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		if r.Verdict == Wrong || r.Verdict == Missing && r.Name != "probe/digest-key" {
			t.Errorf("%+v", r)
		}
	}
	if n := report.Count(secondOpinion, OK); n != 16 {
		t.Errorf("%d opinions", n)
	}
	if n := report.Count("", OK); n < 150 {
		t.Errorf("%d checks", n)
	}
	if a := report.About; a.Token != token.Label || !slices.Contains(a.Mechanisms, "CKM_AES_KEY_WRAP") || a.Sessions != "no limit" {
		t.Errorf("%+v", a)
	}
	if row := report.Row(); !strings.Contains(row, "| 1 probe | – | 16 of 16 ok | yes |") {
		t.Error(row)
	}
	if left := labels(t, s); !slices.Equal(left, []string{"own"}) {
		t.Errorf("in the token: %q", left)
	}
}

// TestFaults tries a module that lacks a mechanism, ignores a protection and crashes.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the whole suite")
	}
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(
		hsmtest.Fault{Function: "*", Unknown: true, Mechanism: []uint{pkcs11.CKM_AES_CMAC}},
		hsmtest.Fault{Function: "C_Sign", Mechanism: []uint{pkcs11.CKM_ECDSA}, Crash: true},
		hsmtest.Fault{Function: "C_GenerateKey", Ignore: true, Attribute: []uint{pkcs11.CKA_MODIFIABLE}},
	)
	report, err := Run(t.Context(), config(t, token, m.Path))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Result{}
	for _, r := range report.Results {
		got[r.Name] = r
	}
	if r := got["mac/aes128-cmac/distinct"]; r.Verdict != Missing || !strings.Contains(r.Answer, "CKR_MECHANISM_INVALID") || r.Means == "" {
		t.Errorf("CMAC: %+v", r)
	}
	if r := got["sign/ecdsa-p256"]; r.Verdict != Wrong || !strings.Contains(r.Detail, "segmentation fault") {
		t.Errorf("crash: %+v", r)
	}
	if r := got["sealing-keys/seal-session"]; r.Verdict != Wrong || !r.Refused || !strings.Contains(r.Detail, "modifiable") {
		t.Errorf("modifiable: %+v", r)
	}
	for _, after := range []string{"wrap/aes128-cbc", "close"} {
		if report.Count(Result{Name: after}.Group(), OK) == 0 {
			t.Errorf("no %s after a crash", after)
		}
	}
	if r := got[cleaning]; r.Verdict != OK {
		t.Errorf("%+v", r)
	}
}

// TestLacking judges failures: what a module does not have is missing, and anything else wrong.
func TestLacking(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Verdict
	}{
		{&hsm.Error{Function: "C_SignInit", Code: pkcs11.CKR_MECHANISM_INVALID}, Missing},
		{&hsm.Error{Function: "C_GenerateKey", Code: pkcs11.CKR_ATTRIBUTE_TYPE_INVALID}, Missing},
		{fmt.Errorf("hsm: the module has no CKM_AES_KEY_WRAP: %w", errors.ErrUnsupported), Missing},
		{pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED), Missing},
		{&hsm.Error{Function: "C_Sign", Code: pkcs11.CKR_DEVICE_ERROR}, Wrong},
		{keystore.ErrLost, Wrong},
		{errors.Join(keystore.ErrBadData, keystore.ErrUnavailable), Wrong},
	} {
		if got := failure([]any{"aes128-cbc", c.err}); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
	}
}

// TestClaimed begins a second test of a token at the moment when the first did: it ends, and leaves the
// keys of the first.
func TestClaimed(t *testing.T) {
	s := openToken(t, softhsm.Temp(t))
	if err := claim(s); err != nil {
		t.Fatal(err)
	}
	if err := claim(s); !errors.Is(err, keystore.ErrExists) || !strings.Contains(err.Error(), "another test of this token is running") {
		t.Error(err)
	}
	if left, err := s.Lookup(keystoretest.Prefix + "running"); err != nil || len(left) != 1 || left[0].Number != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestOneSession judges a lack of sessions: that of a token that permits one says nothing about it.
func TestOneSession(t *testing.T) {
	for told, want := range map[string]Verdict{"1": NotAsked, "2": Wrong, "no limit": Wrong} {
		r := runner{report: Report{About: About{Sessions: told}}}
		r.take(Result{Name: "foreign", Verdict: Wrong, Answer: "C_OpenSession: CKR_SESSION_COUNT"})
		if got := r.report.Results[0]; got.Verdict != want || (len(r.report.OneSession()) == 1) != (want == NotAsked) {
			t.Errorf("of %s: %+v", told, got)
		}
	}
}

// TestRefused asks what ends a test before it begins.
func TestRefused(t *testing.T) {
	token := softhsm.Temp(t)
	c := config(t, token, token.Module)
	wrong := c
	wrong.PIN = lockedmem.Copy([]byte("0000"))
	defer wrong.PIN.Close()
	if _, err := Run(t.Context(), wrong); !errors.Is(err, keystore.ErrPIN) {
		t.Errorf("wrong PIN: %v", err)
	}
	none := c
	none.URI = "pkcs11:token=none?module-path=" + token.Module
	if _, err := Run(t.Context(), none); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("no token: %v", err)
	}
	s := openToken(t, token)
	if _, err := s.Create(keystoretest.Prefix+"left", keystore.AES128CBC); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), c); !errors.Is(err, keystore.ErrExists) || !strings.Contains(err.Error(), "keystoretest-left") {
		t.Errorf("keys are there: %v", err)
	}
	if left := labels(t, s); !slices.Equal(left, []string{"keystoretest-left"}) {
		t.Errorf("in the token: %q", left)
	}
}

// TestStopped asks that a test that is given up leaves no keys.
func TestStopped(t *testing.T) {
	token := softhsm.Temp(t)
	ctx, stop := context.WithCancel(t.Context())
	c := config(t, token, token.Module)
	start, steps := c.Command, 0
	c.Command = func() *exec.Cmd {
		if steps++; steps == 2 {
			time.AfterFunc(time.Second, stop) // while the suite runs
		}
		return start()
	}
	if _, err := Run(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if left := labels(t, openToken(t, token)); len(left) > 0 {
		t.Errorf("in the token: %q", left)
	}
}

// TestHang asks that a module that does not answer is given up.
func TestHang(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(hsmtest.Fault{Function: "C_GetInfo", Hang: true})
	c := config(t, token, m.Path)
	c.Silence = 500 * time.Millisecond
	if _, err := Run(t.Context(), c); !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "no answer for 500ms") {
		t.Errorf("%v", err)
	}
}

// TestUntold tries a module that does not tell what it is: a server does not ask for that, so it
// is a result, and no end.
func TestUntold(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	for function, want := range map[string]string{"C_GetInfo": token.Label, "C_GetMechanismList": token.Label, "C_GetTokenInfo": ""} {
		r := &runner{Config: config(t, token, m.Path)}
		m.Inject(hsmtest.Fault{Function: function, Code: pkcs11.CKR_FUNCTION_FAILED})
		if err := r.do(t.Context(), request{Step: stepAbout}); err != nil {
			t.Errorf("%s: %v", function, err)
		}
		if got := r.report.About.Token; got != want {
			t.Errorf("%s: token %q", function, got)
		}
		failed := slices.ContainsFunc(r.report.Results, func(one Result) bool {
			return one.Name == described && one.Verdict == Wrong && strings.Contains(one.Detail, function) && one.Means != "" && !one.Refused
		})
		if failed != (want != "") { // without C_GetTokenInfo there is no token to ask about
			t.Errorf("%s: %+v", function, r.report.Results)
		}
	}
	m.Inject(hsmtest.Fault{Listed: new(uint(10_000))})
	r := &runner{Config: config(t, token, m.Path)}
	if err := r.do(t.Context(), request{Step: stepAbout}); err != nil || len(r.report.Results) > 0 || len(r.report.About.Mechanisms) > 200 {
		t.Errorf("10,000 mechanisms: %v, %+v", err, r.report)
	}
}
