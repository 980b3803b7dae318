package state

import (
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/msl"
)

// Errors of this package, wrapped with what they are about. Test them with
// errors.Is.
var (
	// ErrDamaged: a record is not what this package wrote.
	ErrDamaged = kv.ErrDamaged
	// ErrExists: there is an entity or user of that name.
	ErrExists = kv.ErrExists
	// ErrUnknown: there is no entity or user of that name.
	ErrUnknown = errors.New("not registered")
	// ErrRevoked: the name was revoked and must not come back by accident.
	ErrRevoked = errors.New("is revoked")
	// ErrNotRevoked is a revocation that cannot be taken back.
	ErrNotRevoked = errors.New("is not revoked")
)

// wrap says what was being done, except where the answer is a code of the
// protocol.
func wrap(op string, err error) error {
	if _, isCode := err.(msl.Code); err == nil || isCode {
		return err
	}
	return fmt.Errorf("state: %s: %w", op, err)
}
