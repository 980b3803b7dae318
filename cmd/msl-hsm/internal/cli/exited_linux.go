//go:build cgo && !nopkcs11 && !race && !msan && !asan

package cli

/*
#include <stdlib.h>
#include <unistd.h>

static pid_t self;

// Runs if something calls exit(3), which Go itself does only with a sanitizer: a library of this
// process. Whatever code that gave, nothing is done. 4 is exit.Keystore. A process that a library
// forked may exit.
static void exited(void) {
	static const char said[] = "msl-hsm: a library in this process, most likely that of the token, called exit(): ask its vendor; "
		"msl-hsm module test shows in which function\n";

	if (getpid() != self)
		return;
	(void)!write(2, said, sizeof said - 1);
	_exit(4);
}

__attribute__((constructor)) static void expect(void) {
	self = getpid();
	atexit(exited);
}
*/
import "C"
