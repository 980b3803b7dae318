//go:build cgo

package hsmtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

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
		{head + "* ignore\n", "4: ignore and tell need attribute="},
		{head + "* as=CKM_AES_KEY_WRAP\n", "4: as needs one mechanism="},
		{head + "* as=1 pad=17 mechanism=5\n", "4: as needs one mechanism="},
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
		"C_GetSlotList leak=1<<12 code=5":                   "0x5",
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
		for _, word := range []string{"crash", "hang", "delay", "leak", "target"} {
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
