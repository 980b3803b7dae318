//go:build !unix

package lockedmem

import (
	"errors"
	"fmt"
)

func allocate(n int) ([]byte, bool) { return make([]byte, n), false }

// Check returns why buffers cannot be kept out of swap space here.
func Check() error { return fmt.Errorf("lockedmem: mlock: %w", errors.ErrUnsupported) }

func free([]byte) {}
