package hsm

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An Error is what a PKCS #11 function answered. It unwraps to the error of
// package keystore that says what it means for the caller.
type Error struct {
	Function string // C_WrapKey
	Code     uint   // a CK_RV

	epoch uint64 // the life of the sessions it came from
}

// Error names the function and its answer.
func (e *Error) Error() string {
	if e.Code == codeStale {
		return "hsm: the PKCS #11 sessions are gone"
	}
	return fmt.Sprintf("hsm: %s: %s", e.Function, codeName(e.Code))
}

// Unwrap returns the error of package keystore.
func (e *Error) Unwrap() error {
	switch e.class() {
	case classObject:
		return keystore.ErrLost
	case classLocked:
		return keystore.ErrLocked
	case classPIN:
		return keystore.ErrPIN
	case classBusy:
		return keystore.ErrBusy
	case classWrongKey:
		return keystore.ErrWrongKey
	case classUnsupported:
		return errors.ErrUnsupported
	}
	return keystore.ErrUnavailable
}

// codeName is the name of a CK_RV, or its number where it has none.
func codeName(code uint) string {
	var number uint
	var name string
	fmt.Sscanf(pkcs11.Error(code).Error(), "pkcs11: 0x%X: %s", &number, &name)
	if name == "" {
		return fmt.Sprintf("CKR 0x%08X", code)
	}
	return name
}

// A class says what to do about an answer.
type class int

const (
	classOther       class = iota
	classStale             // the sessions are of an older life: none was used
	classSession           // sessions or login are gone: open them again
	classDevice            // the module has to be initialised again
	classObject            // the object is gone
	classAmbiguous         // bad data, or a device that fails: try which
	classLocked            // the key may not leave
	classPIN               // never try again
	classBusy              // no session is free
	classWrongKey          // the key is not for this
	classUnsupported       // the module cannot do it
)

// codeStale is no answer of a module: the sessions were renewed meanwhile.
const codeStale = 1 << 31

func (e *Error) class() class {
	switch e.Code {
	case codeStale:
		return classStale
	case pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_USER_NOT_LOGGED_IN:
		return classSession
	case pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_REMOVED,
		pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_SLOT_ID_INVALID:
		return classDevice
	case pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID,
		pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID, pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID:
		return classObject
	case pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_ARGUMENTS_BAD,
		pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE,
		pkcs11.CKR_WRAPPED_KEY_INVALID, pkcs11.CKR_WRAPPED_KEY_LEN_RANGE,
		pkcs11.CKR_DATA_INVALID, pkcs11.CKR_DATA_LEN_RANGE:
		return classAmbiguous
	case pkcs11.CKR_KEY_UNEXTRACTABLE, pkcs11.CKR_KEY_NOT_WRAPPABLE:
		return classLocked
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE,
		pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED:
		return classPIN
	case pkcs11.CKR_SESSION_COUNT:
		return classBusy
	case pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_SIZE_RANGE,
		pkcs11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT, pkcs11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT:
		return classWrongKey
	case pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID, pkcs11.CKR_FUNCTION_NOT_SUPPORTED:
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
