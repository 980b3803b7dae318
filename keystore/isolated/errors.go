package isolated

import (
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// kinds are the errors that keep their identity between the processes, by number.
var kinds = [...]error{
	keystore.ErrNotFound, keystore.ErrBusy, keystore.ErrClosed, keystore.ErrUnavailable,
	keystore.ErrPIN, keystore.ErrLost, keystore.ErrLocked, keystore.ErrForeign,
	keystore.ErrBadData, keystore.ErrWrongKey, keystore.ErrWeakKey, keystore.ErrExists,
	errors.ErrUnsupported, keystore.ErrBadTag, keystore.ErrUnclear,
}

// A childError is an error of the store in the child: its text and its kinds.
type childError struct {
	text  string
	kinds []error
}

func (e *childError) Error() string { return e.text }

func (e *childError) Unwrap() []error { return e.kinds }

// kindsOf returns the kinds of an error as a set of bits.
func kindsOf(err error) (set uint64) {
	for i, kind := range kinds {
		if errors.Is(err, kind) {
			set |= 1 << i
		}
	}
	return set
}

func newChildError(text string, set uint64) error {
	e := &childError{text: text}
	for i, kind := range kinds {
		if set>>i&1 == 1 {
			e.kinds = append(e.kinds, kind)
		}
	}
	return e
}

// A lostError says that the child ended during a call, or did not answer in time. The
// call may have been made.
type lostError struct {
	why  string
	late bool // this call took too long: it is not made again
}

func (e *lostError) Error() string {
	return fmt.Sprintf("isolated: the process of the key store %s and is replaced: %v", e.why, keystore.ErrUnavailable)
}

func (e *lostError) Unwrap() error { return keystore.ErrUnavailable }

var errClosed = fmt.Errorf("isolated: %w", keystore.ErrClosed)
