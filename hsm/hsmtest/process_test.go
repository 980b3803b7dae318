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

// TestKilled counts only the sessions of living processes, while they run.
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
