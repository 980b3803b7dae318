package balanced

import (
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// ErrDifferent means that tokens do not hold the same keys.
var ErrDifferent = errors.New("the tokens do not hold the same keys")

// errLate means that a token did not answer in time.
var errLate = fmt.Errorf("balanced: the token does not answer: %w", keystore.ErrUnavailable)

var errClosed = fmt.Errorf("balanced: %w", keystore.ErrClosed)

// named says which token an error is of.
func named(p *place, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("token %s: %w", p.name, err)
}

// elsewhere reports whether an operation that failed may work on another token.
func elsewhere(err error) bool {
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, keystore.ErrLocked) {
		return false
	}
	for _, kind := range []error{
		keystore.ErrUnavailable, keystore.ErrBusy, keystore.ErrLost, keystore.ErrPIN, keystore.ErrNotFound, ErrDifferent,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}
