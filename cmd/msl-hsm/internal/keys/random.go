package keys

import (
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/mixed"
)

// Random returns the configured source of randomness, or nil for the operating system
// only. It is tried once. Close it before the store.
func Random(c *config.Config, store keystore.Store) (io.ReadCloser, error) {
	if c.Keystore.Random != config.RandomMixed {
		return nil, nil
	}
	device, ok := store.(keystore.RandomSource)
	if !ok {
		return nil, noDevice()
	}
	r := mixed.New(device, c.Keystore.CallTimeout)
	if _, err := r.Read(make([]byte, 1)); err != nil {
		r.Close()
		return nil, fmt.Errorf("keystore.random is mixed: %w; set it to os to do without the device", err)
	}
	return r, nil
}

func noDevice() error {
	return exit.Usagef("keystore.random is mixed, but soft keys have no device to mix with: set it to os, or name a PKCS #11 token or a TPM with keystore.uri")
}
