package bolt

import (
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
)

// Errors of a file, wrapped with context. Test for them with errors.Is. Package state
// has those of the contents.
var (
	// ErrInUse: another process has the file open.
	ErrInUse = kv.ErrInUse
	// ErrDamaged: the contents are not what this package wrote.
	ErrDamaged = kv.ErrDamaged
	// ErrFormat: the file is of a newer version, or for another purpose.
	ErrFormat = kv.ErrFormat
	// ErrEmpty: the file has no state in it, for example because it was truncated or
	// created by touch.
	ErrEmpty = kv.ErrEmpty
	// ErrForged: someone without the key changed the file.
	ErrForged = kv.ErrForged
	// ErrUnsigned is an ErrForged: the file was authenticated before, and no longer is.
	ErrUnsigned = authkv.ErrUnsigned
	// ErrOtherKey is an ErrForged: the file was authenticated with another key, or with a
	// version that no longer exists.
	ErrOtherKey = authkv.ErrOtherKey
	// ErrNoKey: the file is authenticated, and the key to change it is missing.
	ErrNoKey = authkv.ErrNoKey
	// ErrExists: a file of that name already exists.
	ErrExists = kv.ErrExists
)

// advice says what to do about a file that cannot be used.
type advice struct {
	holder string // who probably has the file open, for ErrInUse
	remedy string // what to do with a damaged file
}

// explainGuard adds the name of the file to an authentication error. Errors of the key
// store are unchanged.
func explainGuard(path string, err error) error {
	if errors.Is(err, ErrForged) {
		return fmt.Errorf("bolt: %s cannot be used: %w", path, err)
	}
	return err
}

// explain adds what to do about an error of a file.
func (a advice) explain(path string, err error) error {
	switch {
	case errors.Is(err, ErrInUse):
		return fmt.Errorf("bolt: %s uses %s: stop it or wait, and try again: %w", a.holder, path, err)
	case errors.Is(err, ErrEmpty):
		return fmt.Errorf("bolt: %s: %w: restore a backup, or remove it and make a new one", path, err)
	case errors.Is(err, ErrDamaged):
		return fmt.Errorf("bolt: %s cannot be used: %s: %w", path, a.remedy, err)
	}
	return fmt.Errorf("bolt: %w", err)
}
