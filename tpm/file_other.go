//go:build !unix

package tpm

import (
	"errors"
	"fmt"
	"io"
)

func openFile(path string) (io.ReadWriteCloser, error) {
	return nil, fmt.Errorf("%s: no TPM device on this platform: %w", path, errors.ErrUnsupported)
}
