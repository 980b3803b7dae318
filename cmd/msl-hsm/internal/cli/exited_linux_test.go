//go:build cgo && !nopkcs11 && !race && !msan && !asan

package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/hsm"
)

// TestLibraryExits loads libraries that call exit(): that is not taken for success, and is said.
func TestLibraryExits(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"loaded":      `__attribute__((constructor)) static void f(void) { exit(0); }`,
		"initialized": `static int f(void *a) { exit(2); } static struct { char v[8]; void *f[68]; } l = {{2, 40}, {f}}; int C_GetFunctionList(void **p) { *p = &l; return 0; }`,
		"thread":      `#include <pthread.h>` + "\n" + `static void *f(void *a) { exit(0); } __attribute__((constructor)) static void g(void) { pthread_t t; pthread_create(&t, 0, f, 0); pthread_join(t, 0); }`,
	} {
		source, library := filepath.Join(dir, name+".c"), filepath.Join(dir, name+".so")
		if err := os.WriteFile(source, []byte("#include <stdlib.h>\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		out, err := exec.Command("msl-hsm", "token", "list", "--keystore", (&hsm.URI{ModulePath: library}).String()).CombinedOutput()
		if code := codeOf(t, err); code != exit.Keystore || !strings.Contains(string(out), "called exit()") || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%s: exit code %d, %q", name, code, out)
		}
	}
}
