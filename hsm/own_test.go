package hsm_test

import (
	"bytes"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
)

// TestSignals loads a module that takes signals for itself, when it is loaded and again when it
// is initialized: the program can be stopped as before.
func TestSignals(t *testing.T) {
	module := compiled(t, `#include <signal.h>
static int take(void *a) { signal(SIGTERM, SIG_IGN); signal(SIGINT, SIG_IGN); signal(SIGHUP, SIG_IGN); signal(SIGUSR1, SIG_IGN); return 6; }
__attribute__((constructor)) static void loaded(void) { take(0); }
static struct { char v[8]; void *f[68]; } l = {{2, 40}, {take, take}};
int C_GetFunctionList(void **p) { take(0); *p = &l; return 0; }`)
	arrived := make(chan os.Signal, 1)
	all := []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1}
	signal.Notify(arrived, all...)
	defer signal.Stop(arrived)
	for range 2 { // the second time it is loaded already
		if _, err := hsm.Slots(module, ""); err == nil {
			t.Fatal("C_Initialize failed")
		}
		for _, want := range all {
			syscall.Kill(os.Getpid(), want.(syscall.Signal))
			select {
			case got := <-arrived:
				if got != want {
					t.Errorf("%v, want %v", got, want)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%v does not arrive", want)
			}
		}
	}
}

// TestOwnProcess loads a module that changes what is the program's, when it is loaded and again when
// it is initialized.
func TestOwnProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the umask is known on Linux only")
	}
	module := compiled(t, `#include <sys/stat.h>
#include <unistd.h>
static int take(void *a) { umask(0777); close(0); close(2); return chdir("/") ? 5 : 6; }
__attribute__((constructor)) static void loaded(void) { take(0); }
static struct { char v[8]; void *f[68]; } l = {{2, 40}, {take, take}};
int C_GetFunctionList(void **p) { take(0); *p = &l; return 0; }`)
	if os.Getenv("HSM_TEST_OWN") == "" {
		c := exec.Command(os.Args[0], "-test.run", "^TestOwnProcess$")
		c.Env = append(os.Environ(), "HSM_TEST_OWN=1")
		var told bytes.Buffer
		c.Stderr = &told
		if out, err := c.Output(); err != nil || told.String() != "told" {
			t.Errorf("%v: %s; %q", err, out, told.String())
		}
		return
	}
	before, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is loaded already
		if _, err := hsm.Slots(module, ""); err == nil {
			t.Fatal("C_Initialize failed")
		}
	}
	if now, err := os.Readlink("/proc/self/cwd"); err != nil || now != before {
		t.Errorf("the directory is %s, %v, and was %s", now, err, before)
	}
	if mask := syscall.Umask(0o022); mask == 0o777 {
		t.Error("the umask is that of the module")
	}
	if _, err := os.Stdin.Stat(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stderr.WriteString("told"); err != nil {
		t.Error(err)
	}
}
