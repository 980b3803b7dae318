//go:build !linux

package isolated

import (
	"errors"
	"fmt"
)

// Confine is not there on this system.
func Confine() error { return fmt.Errorf("isolated: seccomp: %w", errors.ErrUnsupported) }
