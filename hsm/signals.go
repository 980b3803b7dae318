package hsm

// #include "operation.h"
import "C"

import "sync"

// handlers are those of signals before the first of the calls in progress that may change them.
var handlers struct {
	sync.Mutex
	calls int
	kept  C.msl_handlers
}

// keepSignals makes a function that gives this program its signals back: some modules take
// them when they are loaded or initialized, and then nothing could stop the program.
func keepSignals() func() {
	handlers.Lock()
	defer handlers.Unlock()
	if handlers.calls == 0 {
		C.msl_keep_handlers(&handlers.kept)
	}
	handlers.calls++
	return restoreSignals
}

func restoreSignals() {
	handlers.Lock()
	defer handlers.Unlock()
	C.msl_restore_handlers(&handlers.kept)
	handlers.calls--
}
