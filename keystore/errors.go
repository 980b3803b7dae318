package keystore

import (
	"errors"
	"fmt"
)

// Errors that every provider returns, wrapped with its own words and the name
// of the device's error. Test them with errors.Is.
var (
	// ErrNotFound: no provisioned key has that label, or no such key exists.
	ErrNotFound = errors.New("keystore: no such key")
	// ErrBusy: every device session was in use for longer than the bound.
	ErrBusy = errors.New("keystore: busy")
	// ErrClosed: the key or the store was closed.
	ErrClosed = errors.New("keystore: closed")
	// ErrUnavailable: the device does not answer, or lost its state.
	ErrUnavailable = errors.New("keystore: unavailable")
	// ErrPIN: the PIN is wrong, missing or locked. Never retry by machine.
	ErrPIN = errors.New("keystore: PIN refused")
	// ErrLost: the device forgot a session key that cannot be made again.
	ErrLost = errors.New("keystore: key lost")
	// ErrLocked: the key was sealed, or came from a provisioned key: it may
	// not leave the device again.
	ErrLocked = errors.New("keystore: key is locked")
	// ErrForeign: the blob was not sealed here, or not for this use.
	ErrForeign = errors.New("keystore: blob was not sealed here for this use")
	// ErrBadData: a ciphertext or a wrapped key that does not open.
	ErrBadData = errors.New("keystore: data does not open")
	// ErrBadTag: data that does not have the tag of this key.
	ErrBadTag = errors.New("keystore: tag does not match")
	// ErrWrongKey: the key is of another store, or not for this operation.
	ErrWrongKey = errors.New("keystore: wrong kind of key")
	// ErrWeakKey: a provisioned key lacks the protection it must have.
	ErrWeakKey = errors.New("keystore: key is not protected")
	// ErrExists: a key with that label is there already.
	ErrExists = errors.New("keystore: key exists")
)

// NoPINf returns an error about a PIN that no device was given, since it is missing or cannot
// be one. It is [ErrPIN], and does not say that a PIN was refused.
func NoPINf(format string, args ...any) error { return noPIN{fmt.Errorf(format, args...)} }

type noPIN struct{ error }

func (n noPIN) Unwrap() []error { return []error{n.error, ErrPIN} }
