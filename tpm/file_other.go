//go:build !unix

package tpm

import (
	"errors"
	"fmt"
	"io"
	"time"
)

func openDevice(path string, _ time.Duration) (io.ReadWriteCloser, error) {
	return nil, fmt.Errorf("%s: no TPM device on this platform: %w", path, errors.ErrUnsupported)
}
