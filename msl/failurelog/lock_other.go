//go:build !unix

package failurelog

import "os"

// lockFile opens the file without locking it: on this platform the user must not give
// two reporters the same spool.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
