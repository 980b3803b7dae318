package hsm_test

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
)

// TestSignals loads a module that takes signals for itself, when it is loaded and again when it
// is initialized: the program can be stopped as before.
func TestSignals(t *testing.T) {
	module := compiled(t, `#include <signal.h>
static int take(void *a) { signal(SIGTERM, SIG_IGN); signal(SIGINT, SIG_IGN); signal(SIGHUP, SIG_IGN); return 6; }
__attribute__((constructor)) static void loaded(void) { take(0); }
static struct { char v[8]; void *f[68]; } l = {{2, 40}, {take, take}};
int C_GetFunctionList(void **p) { take(0); *p = &l; return 0; }`)
	arrived := make(chan os.Signal, 1)
	all := []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}
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
