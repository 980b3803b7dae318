package hsm

// #include "operation.h"
import "C"

import "sync"

// own is what this program had before the first of the calls in progress that may change it.
var own struct {
	sync.Mutex
	calls int
	kept  C.msl_kept
}

// keepOwn makes a function that gives this program back what is its own: some modules take its
// signals when they are loaded or initialized, and then nothing could stop the program; or they go to
// another directory, close its standard streams or change the mode of new files.
func keepOwn() func() {
	own.Lock()
	defer own.Unlock()
	if own.calls == 0 {
		C.msl_keep(&own.kept)
	}
	own.calls++
	return restoreOwn
}

func restoreOwn() {
	own.Lock()
	defer own.Unlock()
	C.msl_restore(&own.kept)
	if own.calls--; own.calls == 0 {
		C.msl_forget(&own.kept)
	}
}
