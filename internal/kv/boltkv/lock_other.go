//go:build !unix

package boltkv

import (
	"errors"
	"os"
)

// lock would lock a file as bbolt does. An open file cannot be replaced here.
func lock(*os.File) error {
	return errors.New("an open file cannot be replaced on this system: move it away first")
}
