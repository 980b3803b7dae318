//go:build !linux

package isolated

import (
	"errors"
	"fmt"
)

// Hide is not there on this system.
func Hide() error { return fmt.Errorf("isolated: prctl: %w", errors.ErrUnsupported) }

// Confine is not there on this system.
func Confine() error { return fmt.Errorf("isolated: seccomp: %w", errors.ErrUnsupported) }
