//go:build !unix

package boltkv

import (
	"errors"
	"os"
)

// lock would lock a file like bbolt. On this platform an open file cannot be replaced
// anyway.
func lock(*os.File) error {
	return errors.New("an open file cannot be replaced on this system: move it away first")
}

// InUse reports nothing on this platform.
func InUse(string) (bool, error) { return false, nil }
