//go:build !unix

package failurelog

import "os"

// lockFile opens the file: where there is no lock, two reporters must not be given
// the same spool.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
