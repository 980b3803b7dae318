package keystore

import (
	"errors"
	"fmt"
)

// Errors that every provider returns, wrapped with its own message and the name of the
// device's error. Test them with errors.Is.
var (
	// ErrNotFound: no provisioned key has that label, or no such key exists.
	ErrNotFound = errors.New("keystore: no such key")
	// ErrBusy: every device session was in use for longer than the bound.
	ErrBusy = errors.New("keystore: busy")
	// ErrClosed: the key or the store was closed.
	ErrClosed = errors.New("keystore: closed")
	// ErrUnavailable: the device does not answer, or lost its state.
	ErrUnavailable = errors.New("keystore: unavailable")
	// ErrPIN: the PIN is wrong, missing or locked. Never retry automatically.
	ErrPIN = errors.New("keystore: PIN refused")
	// ErrUnclear: the device was given the PIN, and did not answer whether it is right. Retry
	// with pauses that grow, see [PINPause]: it may have counted a wrong one.
	ErrUnclear = errors.New("keystore: no answer to the PIN")
	// ErrLost: the device lost a session key that cannot be recreated.
	ErrLost = errors.New("keystore: key lost")
	// ErrLocked: the key was sealed, or came from a provisioned key: it may
	// not leave the device again.
	ErrLocked = errors.New("keystore: key is locked")
	// ErrForeign: the blob was not sealed here, or not for this use.
	ErrForeign = errors.New("keystore: blob was not sealed here for this use")
	// ErrBadData: a ciphertext does not decrypt, or a wrapped key does not unwrap.
	ErrBadData = errors.New("keystore: data does not open")
	// ErrBadTag: the tag does not match the data.
	ErrBadTag = errors.New("keystore: tag does not match")
	// ErrWrongKey: the key belongs to another store, or is not for this operation.
	ErrWrongKey = errors.New("keystore: wrong kind of key")
	// ErrWeakKey: a provisioned key lacks the protection it must have.
	ErrWeakKey = errors.New("keystore: key is not protected")
	// ErrExists: a key with that label already exists.
	ErrExists = errors.New("keystore: key exists")
)

// NoVersion says that a store has no such version of a key, or with version 0 none at all,
// as [ErrNotFound].
func NoVersion(label string, version uint32) error {
	if version == 0 {
		return fmt.Errorf("key %q: %w", label, ErrNotFound)
	}
	return fmt.Errorf("key %q version %d: %w", label, version, ErrNotFound)
}

// NoPINf returns an error about a PIN that was not given to any device, because it is missing
// or malformed. It is [ErrPIN], and does not say that a PIN was refused.
func NoPINf(format string, args ...any) error { return noPIN{fmt.Errorf(format, args...)} }

// PINRefused reports whether an error says that a device refused the PIN that it was given.
func PINRefused(err error) bool { return errors.Is(err, ErrPIN) && !errors.As(err, new(noPIN)) }

type noPIN struct{ error }

func (n noPIN) Unwrap() []error { return []error{n.error, ErrPIN} }
