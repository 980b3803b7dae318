//go:build cgo

package cli

/*
#include <fcntl.h>

static int closed[3];

// Runs before the Go runtime, which fills the gaps.
__attribute__((constructor)) static void look(void) {
	for (int fd = 0; fd < 3; fd++)
		closed[fd] = fcntl(fd, F_GETFD) < 0;
}

static int started_without(int fd) { return closed[fd]; }
*/
import "C"

// startedWithout reports whether a standard stream was closed when the process started.
func startedWithout(fd int) bool { return C.started_without(C.int(fd)) != 0 }
