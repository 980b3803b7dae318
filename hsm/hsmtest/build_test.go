//go:build cgo

package hsmtest_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

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
		{Code: 5, Skip: -1}, {Leak: -1}, {Code: 5, For: -1}, {Unknown: true}, {Ignore: true}, {Told: new(uint)}, {Replace: "x"},
		{Function: "C_Login", Replace: "x", Token: "y"}, {Function: "C_Login", Length: new(uint(1))}, {Function: "C_Login", Garble: true},
		{Removed: true, Token: "a\"b"}, {Removed: true, Token: strings.Repeat("x", 33)},
		{Attribute: make([]uint, 33), Code: 5}, {As: 5}, {As: 5, Mechanism: []uint{1}, Pad: 17},
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
