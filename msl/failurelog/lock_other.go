//go:build !unix

package failurelog

import (
	"os"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
)

// lockFile opens the file without locking it: on this platform the user must not give
// two reporters the same spool.
func lockFile(path string) (*os.File, error) {
	return atomicfile.Open(path, os.O_RDWR|os.O_CREATE, 0o600)
}
