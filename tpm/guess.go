package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A GuessError says why an empty password was not tried. It is [keystore.ErrPIN].
type GuessError struct{ Why string }

// Error says what is not tried.
func (e *GuessError) Error() string { return "tpm: it has a password: " + e.Why }

// Unwrap returns [keystore.ErrPIN].
func (e *GuessError) Unwrap() error { return keystore.ErrPIN }

// Guess lets try use an empty password for the entity with a TPM Name that is protected
// against dictionary attacks, inside [Device.Do] with the transport that it passes: a
// wrong password counts, and after a few of them the TPM is locked. It returns the error
// of try, or, without trying, a [GuessError] if the password was wrong before, or if one
// more wrong password would lock the TPM.
func Guess(t transport.TPM, name []byte, try func() error) error {
	l, ok := t.(*link)
	if !ok || l.executor == nil {
		return try()
	}
	if l.executor.guessed[string(name)] {
		return &GuessError{"an empty one was wrong, and was not tried again"}
	}
	failed, most, err := wrongTries(t)
	if err != nil {
		return err
	}
	if failed+1 == most {
		return &GuessError{"an empty one was not tried, since one more wrong try would lock the TPM"}
	}
	err = try()
	if errors.Is(err, tpm2.TPMRCAuthFail) {
		l.executor.guessed[string(name)] = true
	}
	return err
}

// A LastTryError says that one more wrong password would lock the TPM, so that none was tried. It is
// [keystore.ErrPIN].
type LastTryError struct{}

// Error says what would happen.
func (*LastTryError) Error() string { return "one more wrong password would lock the TPM" }

// Unwrap returns [keystore.ErrPIN].
func (*LastTryError) Unwrap() error { return keystore.ErrPIN }

// wrongTries reads how many wrong passwords the TPM has counted, and how many lock it.
func wrongTries(t transport.TPM) (failed, most uint32, err error) {
	items, err := capability(t, tpm2.TPMCapTPMProperties, uint32(tpm2.TPMPTLockoutCounter), 2, 8)
	if err != nil {
		return 0, 0, err
	}
	if len(items) != 2 {
		return 0, 0, fmt.Errorf("tpm: TPM2_GetCapability: %w", errAnswer())
	}
	return binary.BigEndian.Uint32(items[0][4:]), binary.BigEndian.Uint32(items[1][4:]), nil
}
