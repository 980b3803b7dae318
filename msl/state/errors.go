package state

import (
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/msl"
)

// Errors of this package, wrapped with context. Test for them with errors.Is.
var (
	// ErrDamaged: a record is not what this package wrote.
	ErrDamaged = kv.ErrDamaged
	// ErrNewer: a record has something that this version does not know.
	ErrNewer = kv.ErrNewer
	// ErrExists: an entity or user of that name already exists.
	ErrExists = kv.ErrExists
	// ErrUnknown: no entity or user of that name exists.
	ErrUnknown = errors.New("not registered")
	// ErrRevoked: the name was revoked and must not be registered again by accident.
	ErrRevoked = errors.New("is revoked")
	// ErrNotRevoked: the name is not revoked, so there is no revocation to lift.
	ErrNotRevoked = errors.New("is not revoked")
	// ErrName: an entity, a user or a client cannot have that name.
	ErrName = errors.New("is not allowed")
	// ErrClockBehind: by the clock, a state was used in the future.
	ErrClockBehind = errors.New("the clock is behind")
)

// wrap adds what was being done, except if the error is a code of the protocol.
func wrap(op string, err error) error {
	if _, isCode := err.(msl.Code); err == nil || isCode {
		return err
	}
	return fmt.Errorf("state: %s: %w", op, err)
}
