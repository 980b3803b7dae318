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

// TestLibraryForks loads a library that starts a process of its own, which calls exit(): that is its
// own affair, and its exit code stays.
func TestLibraryForks(t *testing.T) {
	library := compiled(t, "forks", `#include <sys/wait.h>
#include <unistd.h>
__attribute__((constructor)) static void f(void) {
	pid_t child = fork();
	int status = 0;
	if (!child)
		exit(7);
	waitpid(child, &status, 0);
	dprintf(2, "exit code %d\n", WEXITSTATUS(status));
}`)
	out, _ := exec.Command("msl-hsm", "token", "list", "--keystore", library).CombinedOutput()
	if !strings.HasPrefix(string(out), "exit code 7\n") || strings.Contains(string(out), "called exit()") {
		t.Errorf("%q", out)
	}
}

// compiled compiles a library from C, and returns its URI.
func compiled(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	source, library := filepath.Join(dir, name+".c"), filepath.Join(dir, name+".so")
	if err := os.WriteFile(source, []byte("#include <stdio.h>\n#include <stdlib.h>\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return (&hsm.URI{ModulePath: library}).String()
}

// TestLibraryExits loads libraries that call exit(): that is not taken for success, and is said.
func TestLibraryExits(t *testing.T) {
	for name, text := range map[string]string{
		"loaded":      `__attribute__((constructor)) static void f(void) { exit(0); }`,
		"initialized": `static int f(void *a) { exit(2); } static struct { char v[8]; void *f[68]; } l = {{2, 40}, {f}}; int C_GetFunctionList(void **p) { *p = &l; return 0; }`,
		"thread":      `#include <pthread.h>` + "\n" + `static void *f(void *a) { exit(0); } __attribute__((constructor)) static void g(void) { pthread_t t; pthread_create(&t, 0, f, 0); pthread_join(t, 0); }`,
	} {
		out, err := exec.Command("msl-hsm", "token", "list", "--keystore", compiled(t, name, text)).CombinedOutput()
		if code := codeOf(t, err); code != exit.Keystore || !strings.Contains(string(out), "called exit()") || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%s: exit code %d, %q", name, code, out)
		}
	}
}
