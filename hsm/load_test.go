package hsm_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// compiled is a library of a few lines of C.
func compiled(t *testing.T, text string) string {
	t.Helper()
	source := write(t, "m.c", text, 0o600)
	library := strings.TrimSuffix(source, ".c") + ".so"
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return library
}

// TestNoModules opens files that are not modules of this machine: none may crash or hang the process,
// on any way into one, and each is named with its file.
func TestNoModules(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("of ELF")
	}
	whole, err := os.ReadFile(softhsm.Temp(t).Module)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(whole)
	binary.NativeEndian.PutUint16(other[18:], 183) // e_machine: EM_AARCH64
	if runtime.GOARCH == "arm64" {
		binary.NativeEndian.PutUint16(other[18:], 62) // EM_X86_64
	}
	pipe := filepath.Join(t.TempDir(), "m.so")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for words, path := range map[string]string{
		"/nowhere/m.so: no such file":           "/nowhere/m.so",
		"not a regular file":                    pipe,
		"it is not a shared library":            write(t, "m.so", "", 0o600),
		"damaged or incomplete":                 write(t, "m.so", string(whole[:len(whole)/2]), 0o600),
		"damaged":                               write(t, "m.so", string(whole[:40]), 0o600),
		"and this program for":                  write(t, "m.so", string(other), 0o600),
		"it has no C_GetFunctionList":           compiled(t, "int x;"),
		"C_GetFunctionList: CKR_GENERAL_ERROR":  compiled(t, "int C_GetFunctionList(void **p) { return 5; }"),
		"C_GetFunctionList gives no functions":  compiled(t, "int C_GetFunctionList(void **p) { *p = 0; return 0; }"),
		"its C_GetFunctionList gives no functi": compiled(t, "static struct { char v[8]; void *f[68]; } l = {{2, 40}}; int C_GetFunctionList(void **p) { *p = &l; return 0; }"),
		"C_GetSlotList: CKR_FUNCTION_NOT_SUPPO": compiled(t, "static int ok(void *a) { return 0; } static struct { char v[8]; void *f[68]; } l = {{2, 40}, {ok, ok}}; int C_GetFunctionList(void **p) { *p = &l; return 0; }"),
	} {
		_, listed := hsm.Slots(path, "")
		_, tokens := hsm.Tokens(path)
		_, opened := hsm.Open(hsm.Config{URI: (&hsm.URI{Token: "a", ModulePath: path}).String()})
		for way, err := range map[string]error{"slots": listed, "tokens": tokens, "open": opened, "init": hsm.InitToken(path, "a", nil, nil)} {
			if !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %v; want %q", way, err, words)
			}
		}
	}
}

// TestSlots lists a token that can be read, and the same one while it cannot.
func TestSlots(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	named := func() (found []hsm.Slot) {
		all, err := hsm.Slots(m.Path, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if s.Label == token.Label || s.Err != nil {
				found = append(found, s)
			}
		}
		return found
	}
	if all := named(); len(all) != 1 || all[0].Unread() != nil || all[0].Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 || all[0].Description == "" {
		t.Errorf("slots %+v", all)
	}
	for code, empty := range map[uint]bool{pkcs11.CKR_DEVICE_ERROR: false, pkcs11.CKR_TOKEN_NOT_RECOGNIZED: false, pkcs11.CKR_TOKEN_NOT_PRESENT: true} {
		m.Inject(hsmtest.Fault{Function: "C_GetTokenInfo", Code: code, Times: 1})
		all := named()
		if len(all) == 0 || all[0].Empty() != empty || (all[0].Unread() == nil) != empty {
			t.Errorf("%#x: slots %+v", code, all)
		}
	}
	m.Inject(hsmtest.Fault{Function: "C_GetSlotList", Code: pkcs11.CKR_DEVICE_ERROR})
	if _, err := hsm.Slots(m.Path, ""); !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "C_GetSlotList: CKR_DEVICE_ERROR") {
		t.Errorf("%v", err)
	}
}

// TestListsOneAtATime has several callers list slots: SoftHSM2 adds a slot meanwhile, and two at
// once end the process.
func TestListsOneAtATime(t *testing.T) {
	_, m := newFaulty(t, hsm.Config{})
	const delay = 50 * time.Millisecond
	m.Inject(hsmtest.Fault{Function: "C_GetSlotList", Delay: delay})
	start := time.Now()
	var callers sync.WaitGroup
	for range 3 {
		callers.Go(func() {
			if _, err := hsm.Slots(m.Path, ""); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if took, least := time.Since(start), 3*2*delay; took < least { // each asks for the number first
		t.Errorf("%v, which is less than %v: they did not wait for each other", took, least)
	}
}
