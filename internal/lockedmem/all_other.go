//go:build !linux

package lockedmem

import (
	"errors"
	"fmt"
)

// LockAll is not supported on this system.
func LockAll() error { return fmt.Errorf("lockedmem: mlockall: %w", errors.ErrUnsupported) }
