package hsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An Error is the failure of a PKCS #11 function. It unwraps to the error of package
// keystore that states what it means for the caller.
type Error struct {
	Function string // C_WrapKey
	Code     uint   // a CK_RV

	epoch   uint64 // of the life of the sessions it came from
	stale   bool   // no function was called: the sessions were renewed meanwhile
	garbage string // the impossible answer of the module
	sound   bool   // meanwhile the device did a similar operation correctly
	kept    bool   // the keys of the operation can be had again
	counted bool   // the token counted a wrong PIN
}

// Error names the function and its return code.
func (e *Error) Error() string {
	switch {
	case e.stale:
		return "hsm: the PKCS #11 sessions are gone"
	case e.garbage != "":
		return fmt.Sprintf("hsm: %s: the module answered %s", e.Function, e.garbage)
	}
	text := fmt.Sprintf("hsm: %s: %s", e.Function, codeName(e.Code))
	if e.counted {
		text += ", and the token counted a wrong PIN"
	}
	return text
}

// Unwrap returns errors of package keystore. Any error of a module about keys and data
// that were checked before is also a failure of the device.
func (e *Error) Unwrap() []error {
	switch c := e.class(); {
	case c == classObject && !e.kept:
		return []error{keystore.ErrLost}
	case c == classLocked:
		return []error{keystore.ErrLocked, keystore.ErrUnavailable}
	case c == classPIN:
		return []error{keystore.ErrPIN}
	case c == classBusy:
		return []error{keystore.ErrBusy}
	case c == classUnsupported:
		return []error{errors.ErrUnsupported, keystore.ErrUnavailable}
	case e.isUnclear():
		return []error{keystore.ErrUnavailable, keystore.ErrUnclear}
	}
	return []error{keystore.ErrUnavailable}
}

// isUnclear reports whether a token may have compared a PIN before it answered something else.
func (e *Error) isUnclear() bool {
	if e.Function != "C_Login" || e.stale || e.class() == classSession {
		return false
	}
	switch e.Code {
	case pkcs11.CKR_USER_ALREADY_LOGGED_IN, pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, pkcs11.CKR_USER_TOO_MANY_TYPES, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED,
		pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_DEVICE_REMOVED:
		return false
	}
	return true
}

// codeName is the name of a CK_RV, or its number where it has none.
func codeName(code uint) string {
	var number uint
	var name string
	fmt.Sscanf(pkcs11.Error(code).Error(), "pkcs11: 0x%X: %s", &number, &name)
	switch {
	case code == pkcs11.CKR_PIN_TOO_WEAK: // the list ends before it
		return "CKR_PIN_TOO_WEAK"
	case name == "":
		return fmt.Sprintf("CKR 0x%08X", code)
	}
	return name
}

// A class says what to do about an answer.
type class int

const (
	classOther       class = iota // bad data, or a device that fails: try which
	classStale                    // the sessions are of an older life: none was used
	classSession                  // sessions or login are gone: open them again
	classDevice                   // the module has to be initialized again
	classObject                   // the object is gone
	classLocked                   // the key may not leave
	classPIN                      // never try again
	classBusy                     // no session is free
	classUnsupported              // the module cannot do it
)

func (e *Error) class() class {
	switch {
	case e.stale:
		return classStale
	case e.garbage != "":
		return classOther
	case e.counted:
		return classPIN
	}
	switch e.Code {
	case pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_USER_NOT_LOGGED_IN:
		return classSession
	case pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_REMOVED,
		pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_SLOT_ID_INVALID:
		return classDevice
	case pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID,
		pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID, pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID:
		return classObject
	case pkcs11.CKR_KEY_UNEXTRACTABLE, pkcs11.CKR_KEY_NOT_WRAPPABLE:
		return classLocked
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE,
		pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_TOO_WEAK, pkcs11.CKR_USER_PIN_NOT_INITIALIZED:
		switch e.Function {
		case "C_Login", "C_InitPIN", "C_SetPIN", "C_InitToken":
			return classPIN
		}
	case pkcs11.CKR_SESSION_COUNT:
		return classBusy
	case pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID, pkcs11.CKR_FUNCTION_NOT_SUPPORTED,
		pkcs11.CKR_RANDOM_NO_RNG:
		return classUnsupported
	}
	return classOther
}

// classOf is the class of a module's answer, and classOther of other errors.
func classOf(err error) class {
	var e *Error
	if errors.As(err, &e) {
		return e.class()
	}
	return classOther
}

// A NoTokenError says that none of a module's initialized tokens matches a URI. It unwraps
// to [keystore.ErrNotFound].
type NoTokenError struct {
	URI    string
	Tokens []string // the module's tokens: the quoted label and the serial number of each
}

// Error names the tokens that exist.
func (e *NoTokenError) Error() string {
	there := "none"
	if len(e.Tokens) > 0 {
		there = strings.Join(e.Tokens, ", ")
	}
	return fmt.Sprintf("hsm: no initialized PKCS #11 token matches %s (the module has %s)", e.URI, there)
}

// Unwrap returns [keystore.ErrNotFound].
func (e *NoTokenError) Unwrap() error { return keystore.ErrNotFound }
