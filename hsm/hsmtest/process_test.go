//go:build cgo

package hsmtest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// driver compiles testdata/driver.c, a program that uses a module.
func driver(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "driver")
	if out, err := exec.Command("cc", "-std=gnu11", "-o", path, "testdata/driver.c", "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// drive runs it and gives what it wrote, and on standard error.
func drive(t *testing.T, path, module string, calls ...string) (out, errors string, state *os.ProcessState) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := exec.Command(path, append([]string{module}, calls...)...)
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState
}

func TestCrash(t *testing.T) {
	program := driver(t)
	m := hsmtest.New(t, softhsm.Temp(t).Module)
	for signal, f := range map[syscall.Signal]hsmtest.Fault{
		syscall.SIGSEGV: {Function: "C_GetSlotList", Crash: true},
		syscall.SIGABRT: {Function: "C_GetSlotList", Abort: true},
	} {
		m.Inject(f)
		out, _, state := drive(t, program, m.Path, "initialize", "slots", "finalize")
		if status, ok := state.Sys().(syscall.WaitStatus); !ok || status.Signal() != signal {
			t.Errorf("%v, want %v: %s", state, signal, out)
		}
		if n := m.Counters().Fired; n != 1 {
			t.Errorf("fired %d times", n)
		}
	}
}

// TestEvery answers a code of its own at each function of the list.
func TestEvery(t *testing.T) {
	names := "Initialize Finalize GetInfo GetFunctionList GetSlotList GetSlotInfo GetTokenInfo GetMechanismList " +
		"GetMechanismInfo InitToken InitPIN SetPIN OpenSession CloseSession CloseAllSessions GetSessionInfo " +
		"GetOperationState SetOperationState Login Logout CreateObject CopyObject DestroyObject GetObjectSize " +
		"GetAttributeValue SetAttributeValue FindObjectsInit FindObjects FindObjectsFinal EncryptInit Encrypt " +
		"EncryptUpdate EncryptFinal DecryptInit Decrypt DecryptUpdate DecryptFinal DigestInit Digest DigestUpdate " +
		"DigestKey DigestFinal SignInit Sign SignUpdate SignFinal SignRecoverInit SignRecover VerifyInit Verify " +
		"VerifyUpdate VerifyFinal VerifyRecoverInit VerifyRecover DigestEncryptUpdate DecryptDigestUpdate " +
		"SignEncryptUpdate DecryptVerifyUpdate GenerateKey GenerateKeyPair WrapKey UnwrapKey DeriveKey SeedRandom " +
		"GenerateRandom GetFunctionStatus CancelFunction WaitForSlotEvent"
	m := hsmtest.New(t, softhsm.Temp(t).Module)
	var faults []hsmtest.Fault
	for i, name := range strings.Fields(names) {
		faults = append(faults, hsmtest.Fault{Function: "C_" + name, Code: 0x80000100 + uint(i)})
	}
	faults[3].Skip = 1 // the program gets its list with C_GetFunctionList
	m.Inject(faults...)
	out, _, _ := drive(t, driver(t), m.Path, "every")
	for i := range 68 {
		if line := fmt.Sprintf("\n%d %#x\n", i, 0x80000100+i); !strings.Contains(out, line) {
			t.Errorf("%s; want %s", out, line)
		}
	}
	if c := m.Counters(); c.Fired != 68 || len(c.Calls) != 68 {
		t.Errorf("fired %d times, calls of %d functions", c.Fired, len(c.Calls))
	}
}

// TestGarbage tells lengths that no program of Go survives.
func TestGarbage(t *testing.T) {
	program := driver(t)
	m := hsmtest.New(t, softhsm.Temp(t).Module)
	for _, n := range []uint{0, 1, 1 << 28, 1 << 47, ^uint(0)} {
		m.Inject(hsmtest.Fault{Function: "C_GetSlotList", Length: &n})
		out, _, _ := drive(t, program, m.Path, "initialize", "slots", "finalize")
		if line := fmt.Sprintf("slots 0 %#x\n", n); !strings.Contains(out, strings.ReplaceAll(line, "0x0\n", "0\n")) {
			t.Errorf("%s; want %s", out, line)
		}
	}
}

func TestBadControl(t *testing.T) {
	program := driver(t)
	target := softhsm.Temp(t).Module
	m := hsmtest.New(t, target)
	head := "# what goes wrong\n\ntarget " + target + "\n"
	for _, c := range []struct{ text, want string }{
		{"C_Sign code=CKR_DEVICE_ERROR\n", "1: there is no line \"target"},
		{"target softhsm.so\n", "1: softhsm.so is not the absolute path"},
		{"target /nowhere/softhsm.so\n", "/nowhere/softhsm.so: cannot open"},
		{head + "C_Sing code=5\n", "4: C_Sing is not a function"},
		{head + "C_Sign\n", "4: the rule does nothing"},
		{head + "C_Sign skip=1\n", "4: the rule does nothing"},
		{head + "C_Sign code\n", "4: code needs a value"},
		{head + "C_Sign hang=1\n", "4: hang takes no value"},
		{head + "C_Sign code=CKR_NONSENSE\n", "4: code has a value that is not known"},
		{head + "C_Sign code=0x\n", "4: code has a value"},
		{head + "C_Sign code=5 times=-1\n", "4: times has a value"},
		{head + "C_Sign code=5 times=1<<64\n", "4: times has a value"},
		{head + "C_Sign code=5 for=1\n", "4: for has a value"},
		{head + "C_Sign code=5 for=1h\n", "4: for has a value"},
		{head + "C_Sign code=5 attribute=CKA_ID,\n", "4: attribute has a value"},
		{head + "C_Sign code=5 soon\n", "4: soon is not known"},
		{head + "* removed token=\"a b\n", "4: a quotation mark is not closed"},
		{head + "* removed token=" + strings.Repeat("x", 33) + "\n", "4: token has a value"},
		{head + "* replace=x\n", "4: replace needs token="},
		{head + "C_Login length=0\n", "4: the function tells no length"},
		{head + "* unknown\n", "4: unknown needs attribute="},
		{head + "* ignore\n", "4: ignore needs attribute="},
		{head + "C_Sign code=5\nC_Sing code=5\nC_Sign code=5\n", "5: C_Sing"},
		{head + strings.Repeat("C_Sign code=5\n", 257), "260: there are more than 256"},
		{head + "C_Sign code=5\x00 skip=1\n", "4: there is a byte of zero"},
	} {
		if err := os.WriteFile(m.Control(), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errors, _ := drive(t, program, m.Path, "initialize")
		if !strings.Contains(out, "initialize 0x6\n") || !strings.Contains(errors, c.want) {
			t.Errorf("%q: %s %s; want %q", c.text[:min(len(c.text), 200)], out, errors, c.want)
		}
	}
	os.Remove(m.Control())
	if out, errors, _ := drive(t, program, m.Path, "initialize"); !strings.Contains(out, "initialize 0x6") || !strings.Contains(errors, m.Control()) {
		t.Errorf("no control file: %s %s", out, errors)
	}
	m.Clear()
	if out, errors, _ := drive(t, program, m.Path, "initialize", "slots", "finalize"); strings.Contains(out, "0x6") || errors != "" {
		t.Errorf("good again: %s %s", out, errors)
	}
}

// TestGrammar reads what a person may write.
func TestGrammar(t *testing.T) {
	program := driver(t)
	m := hsmtest.New(t, softhsm.Temp(t).Module)
	for rule, code := range map[string]string{
		"C_GetSlotList code=CKR_DEVICE_ERROR":               "0x30",
		"  C_GetSlotList\tcode=0x80000001  times=2 ":        "0x80000001",
		"C_GetSlotList code=1<<33 skip=0":                   "0x200000000",
		"C_GetSlotList code=~0":                             "0xffffffffffffffff",
		"C_GetSlotList code=48\n* removed token=\"a b\"":    "0x30",
		"C_GetSlotList code=48 for=10s\r\n# remark":         "0x30",
		"C_GetSlotList delay=5us code=CKR_OK after":         "0",
		"C_GetSlotList code=5 attribute=CKA_ID":             "0",
		"C_GetSlotList code=5 mechanism=0x1,CKM_AES_CBC":    "0",
		"C_GetSlotList code=5 skip=1":                       "0",
		"C_GetSlotList code=5 skip=1\nC_GetSlotList code=6": "0x6",
	} {
		text := "target " + softhsmModule(t) + "\n" + rule
		if err := os.WriteFile(m.Control(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errors, _ := drive(t, program, m.Path, "initialize", "slots", "finalize")
		if !strings.Contains(out, "slots "+code+" ") || strings.Contains(errors, m.Control()) {
			t.Errorf("%q: %s %s; want slots %s", rule, out, errors, code)
		}
	}
}

func softhsmModule(t *testing.T) string {
	path, err := softhsm.FindModule()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestProcesses counts calls, and the hits of a fault, of several processes.
func TestProcesses(t *testing.T) {
	program := driver(t)
	m := hsmtest.New(t, softhsm.Temp(t).Module)
	m.Inject(hsmtest.Fault{Function: "C_GetSlotList", Code: pkcs11.CKR_DEVICE_ERROR, Skip: 1, Times: 2})
	for i, code := range []string{"0 ", "0x30 ", "0x30 ", "0 "} {
		if out, _, _ := drive(t, program, m.Path, "initialize", "slots", "finalize"); !strings.Contains(out, "slots "+code) {
			t.Errorf("process %d: %s; want slots %s", i, out, code)
		}
	}
	if c := m.Counters(); c.Calls["C_GetSlotList"] != 4 || c.Fired != 2 {
		t.Errorf("%d calls, fired %d times", c.Calls["C_GetSlotList"], c.Fired)
	}
	if out, _, _ := drive(t, program, m.Path, "initialize", "slots", "open", "fork", "initialize", "slots", "open", "random"); strings.Count(out, "open 0\n") != 2 || !strings.Contains(out, "random 0\n") {
		t.Errorf("the child of a fork: %s", out)
	}
}

// start runs it until the test ends, and waits for a line that it writes.
func start(t *testing.T, path, module, line string, calls ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(path, append([]string{module}, calls...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == line {
			return cmd
		}
	}
	t.Fatalf("it did not write %q", line)
	return nil
}

// TestKilled counts the sessions of living processes alone, while they run.
func TestKilled(t *testing.T) {
	program := driver(t)
	m := hsmtest.New(t, softhsm.Temp(t).Module)
	check := func(what string, sessions int) {
		t.Helper()
		if n := m.Counters().Sessions; n != sessions {
			t.Errorf("%s: %d sessions, want %d", what, n, sessions)
		}
	}
	cmd := start(t, program, m.Path, "pause", "initialize", "slots", "open", "open", "pause")
	check("running", 2)
	start(t, program, m.Path, "pause", "initialize", "slots", "open", "pause")
	check("two", 3)
	cmd.Process.Kill()
	cmd.Wait()
	check("one killed", 1)
	start(t, program, m.Path, "joined", "initialize", "slots", "open", "open", "fork", "initialize", "slots", "open")
	check("the child of a fork ended", 3)
	start(t, program, m.Path, "pause", "initialize", "slots", "open", "pause")
	check("a place of the dead taken", 4)
}

func TestFreshList(t *testing.T) {
	program := driver(t)
	m := hsmtest.New(t, softhsm.Temp(t).Module)
	m.Inject(hsmtest.Fault{FreshList: true})
	out, _, _ := drive(t, program, m.Path, "slots", "initialize", "slots", "open", "initialize", "list",
		"slots", "initialize", "random", "open", "random", "finalize", "finalize")
	var codes []string
	for line := range strings.Lines(out) {
		codes = append(codes, strings.Fields(line)[1])
	}
	want := "0 0x190 0 0 0 0x191 0 0x190 0 0xb3 0 0 0 0x190"
	if got := strings.Join(codes, " "); got != want {
		t.Errorf("%s\n%s, want %s", out, got, want)
	}
	start(t, program, m.Path, "pause", "initialize", "slots", "open", "list", "initialize", "open", "open", "finalize", "pause")
	if n := m.Counters().Sessions; n != 1 {
		t.Errorf("%d sessions, want the one of the other list", n)
	}
	out, _, _ = drive(t, program, m.Path, "list", "initialize", "slots", "open", "finalize", "list", "initialize", "slots", "open", "random")
	if !strings.Contains(out, "random 0\n") {
		t.Error(out)
	}
}

// TestCopies uses two copies in one process, one of them through a symbolic link.
func TestCopies(t *testing.T) {
	a := newRig(t)
	b := hsmtest.New(t, a.token.Module)
	link := filepath.Join(t.TempDir(), "link.so")
	if err := os.Symlink(b.Path, link); err != nil {
		t.Fatal(err)
	}
	ctx := pkcs11.New(link)
	if ctx == nil {
		t.Fatal("it does not load")
	}
	b.Inject(hsmtest.Fault{Function: "C_GetSlotList", Code: pkcs11.CKR_DEVICE_ERROR})
	_, err := ctx.GetSlotList(true)
	want(t, "one copy", err, pkcs11.CKR_DEVICE_ERROR)
	_, err = a.GetSlotList(true)
	want(t, "the other", err, pkcs11.CKR_OK)
	if n := b.Counters().Calls["C_GetSlotList"]; n != 1 {
		t.Errorf("%d calls", n)
	}
}

func TestEnvironment(t *testing.T) {
	program := driver(t)
	m := hsmtest.New(t, softhsm.Temp(t).Module)
	path := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(path, []byte("target "+softhsmModule(t)+"\nC_GetSlotList code=0x123\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HSMTEST_CONTROL", path)
	if out, _, _ := drive(t, program, m.Path, "initialize", "slots"); !strings.Contains(out, "slots 0x123") {
		t.Error(out)
	}
	if _, err := os.Stat(path + ".counters"); err != nil {
		t.Error(err)
	}
}

// TestWarnings compiles the module with every warning as an error.
func TestWarnings(t *testing.T) {
	files, err := filepath.Glob("module/*.c")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, cc := range []string{"cc", "clang"} {
		if _, err := exec.LookPath(cc); err != nil {
			continue
		}
		for _, file := range files {
			cmd := exec.Command(cc, "-std=gnu11", "-O1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-c", "-o", os.DevNull, file)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s %s: %v\n%s", cc, file, err, out)
			}
		}
	}
}

// TestNoCompiler runs a test of this package where there is none.
func TestNoCompiler(t *testing.T) {
	softhsm.Temp(t)
	for require, want := range map[string]string{"": "--- SKIP: TestDelay", "softhsm": "--- FAIL: TestDelay"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDelay$", "-test.v")
		cmd.Env = append(os.Environ(), "CC=no-such-compiler", "MSL_TEST_REQUIRE="+require)
		if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), want) {
			t.Errorf("required %q: %s", require, out)
		}
	}
}

// FuzzControl reads control files, in the process: one that breaks the module
// breaks the test.
func FuzzControl(f *testing.F) {
	target, err := softhsm.FindModule()
	if err != nil {
		f.Skip(err)
	}
	m, err := hsmtest.Build(f.TempDir(), target)
	if err != nil {
		f.Skip(err)
	}
	ctx := pkcs11.New(m.Path)
	f.Add("* removed token=\"a b\" skip=1 times=2 for=5ms until-finalize after")
	f.Add("C_Sign code=CKR_OK,\nC_Sign attribute=CKA_ID,0x1 mechanism=CKM_AES_CBC code=~1<<3\n# remark")
	f.Fuzz(func(t *testing.T, rules string) {
		for _, word := range []string{"crash", "hang", "delay", "target"} {
			if strings.Contains(rules, word) {
				t.Skip("it does what it says")
			}
		}
		path := filepath.Join(filepath.Dir(m.Path), "next")
		if err := os.WriteFile(path, []byte("target "+target+"\n"+rules), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path, m.Control()); err != nil {
			t.Fatal(err)
		}
		ctx.GetInfo()
	})
}

// TestBuild runs what New and Build refuse.
func TestBuild(t *testing.T) {
	if _, err := hsmtest.Build(t.TempDir(), "libsofthsm2.so"); err == nil {
		t.Error("a relative target is taken")
	}
	if _, err := hsmtest.Build(filepath.Join(t.TempDir(), "nowhere"), softhsmModule(t)); err == nil {
		t.Error("a directory that is not there is taken")
	}
	m, err := hsmtest.Build(t.TempDir(), softhsmModule(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []hsmtest.Fault{
		{}, {Function: "C_Sing", Code: 5}, {Function: "Sign", Code: 5}, {Function: "C_Sign"},
		{Code: 5, Skip: -1}, {Code: 5, For: -1}, {Unknown: true}, {Ignore: true}, {Replace: "x"},
		{Function: "C_Login", Replace: "x", Token: "y"}, {Function: "C_Login", Length: new(uint(1))},
		{Removed: true, Token: "a\"b"}, {Removed: true, Token: strings.Repeat("x", 33)},
		{Attribute: make([]uint, 33), Code: 5},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v is taken", f)
				}
			}()
			m.Inject(f)
		}()
	}
	if text, err := os.ReadFile(m.Control()); err != nil || bytes.Count(text, []byte("\n")) != 1 {
		t.Errorf("control file after refused faults: %s, %v", text, err)
	}
}
