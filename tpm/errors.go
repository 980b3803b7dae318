package tpm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An Error is the error that a TPM command returned. It unwraps to the corresponding
// error of package keystore, and to the tpm2.TPMRC.
type Error struct {
	Command string // such as TPM2_Load
	Code    tpm2.TPMRC
}

// Error names the command and the response code, and says what to do.
func (e *Error) Error() string {
	s := "tpm: " + e.name()
	if advice := e.advice(); advice != "" {
		s += ": " + advice
	}
	return s
}

// name returns the command and the name of the code.
func (e *Error) name() string {
	code, _, _ := strings.Cut(e.Code.Error(), ": ")
	return e.Command + ": " + code
}

// Unwrap returns the error of package keystore, and the code.
func (e *Error) Unwrap() []error { return []error{e.class(), e.Code} }

// CommandError makes an Error from the result of a go-tpm command. An error that did not
// come from the TPM is returned unchanged.
func CommandError(command string, err error) error {
	var rc tpm2.TPMRC
	if errors.As(err, &rc) {
		return &Error{Command: command, Code: rc}
	}
	return err
}

func (e *Error) class() error {
	switch {
	case e.is(tpm2.TPMRCIntegrity, tpm2.TPMRCBinding, tpm2.TPMRCPolicyFail):
		return keystore.ErrForeign
	case e.is(tpm2.TPMRCHandle):
		return keystore.ErrNotFound
	case gone(e.Code):
		return keystore.ErrLost
	case e.is(tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth, tpm2.TPMRCLockout, tpm2.TPMRCAuthMissing):
		return keystore.ErrPIN
	case e.busy():
		return keystore.ErrBusy
	case e.unsupported():
		return errors.ErrUnsupported
	case e.is(tpm2.TPMRCKey):
		return keystore.ErrWrongKey
	case e.is(tpm2.TPMRCNVDefined):
		return keystore.ErrExists
	}
	return keystore.ErrUnavailable
}

func (e *Error) is(codes ...tpm2.TPMRC) bool {
	for _, c := range codes {
		if e.Code.Is(c) {
			return true
		}
	}
	return false
}

// gone reports whether a TPM error says that a key or session is not loaded.
func gone(err error) bool {
	var rc tpm2.TPMRC
	return errors.As(err, &rc) && (rc >= tpm2.TPMRCReferenceH0 && rc <= tpm2.TPMRCReferenceS6 || rc == tpm2.TPMRCContextGap)
}

func (e *Error) busy() bool {
	return e.is(tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCCanceled, tpm2.TPMRCNVRate, tpm2.TPMRCNVUnavailable,
		tpm2.TPMRCObjectMemory, tpm2.TPMRCObjectHandles, tpm2.TPMRCSessionMemory, tpm2.TPMRCSessionHandles, tpm2.TPMRCMemory)
}

func (e *Error) unsupported() bool {
	return e.is(tpm2.TPMRCCommandCode, tpm2.TPMRCCurve, tpm2.TPMRCKeySize, tpm2.TPMRCAsymmetric, tpm2.TPMRCHash,
		tpm2.TPMRCSymmetric, tpm2.TPMRCMode, tpm2.TPMRCScheme, tpm2.TPMRCKDF)
}

// advice says what to do, for the most common cause of each code.
func (e *Error) advice() string {
	switch {
	case e.is(tpm2.TPMRCIntegrity):
		return "the blob was changed or belongs to another TPM, or the TPM was cleared: enroll this device again"
	case e.is(tpm2.TPMRCHandle):
		return "this handle is empty: another program removed its object, or the TPM was cleared"
	case e.is(tpm2.TPMRCAuthFail):
		return "the PIN is wrong; it was not tried again"
	case e.is(tpm2.TPMRCBadAuth):
		return "the password is wrong; it was not tried again"
	case e.is(tpm2.TPMRCLockout):
		return "too many wrong PINs or sudden losses of power: wait, or reset it with the lockout password; keys without a PIN still work"
	case e.is(tpm2.TPMRCCommandCode):
		return "this TPM does not support the command"
	case e.is(tpm2.TPMRCFailure):
		return "if this persists, the TPM has failed: restart the machine; for a software TPM, check that its state directory exists"
	case e.is(tpm2.TPMRCNVDefined):
		return "another key is at this handle"
	case e.is(tpm2.TPMRCNVSpace):
		return "no room for more: tpm2_getcap handles-persistent lists the keys, and tpm2_evictcontrol -C o -c HANDLE removes one; tpm2_getcap handles-nv-index the counters, and tpm2_nvundefine -C o INDEX removes one"
	case e.is(tpm2.TPMRCDisabled), e.is(tpm2.TPMRCHierarchy):
		return "a hierarchy of the TPM is disabled: restart the machine, and if that does not help, enable it in the firmware"
	case e.is(tpm2.TPMRCUpgrade):
		return "the firmware of the TPM is being updated: finish that with the program that began it"
	case e.is(tpm2.TPMRCReboot):
		return "the TPM works again only after a restart: restart the machine"
	case e.is(tpm2.TPMRCInitialize):
		return "the TPM was reset and not started up: try again, and if that does not help, restart the machine"
	case gone(e.Code):
		return "a key or a session is no longer in the TPM: the TPM was reset or cleared, or another program flushed it: try again"
	case e.busy():
		return "the TPM is busy: try again later"
	}
	return ""
}

// A linkError is the error of a broken connection.
type linkError struct {
	command uint32
	err     error
}

func (e *linkError) Error() string {
	next := "check that this is a TPM, and try again; if that does not help, restart the TPM"
	if e.timeout() {
		next = occupied
	}
	return fmt.Sprintf("tpm: %s: no answer from the TPM: %v; %s", commandName(e.command), e.err, next)
}

// occupied is what to do about a TPM that does not answer in time.
const occupied = "another program may be using it: end that, or try again later; if there is none, restart the TPM"

// absent is what to do if a socket does not lead to a TPM.
func absent(err error) string {
	var late net.Error
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return "; start the program that is the TPM, or correct its address"
	case errors.As(err, &late) && late.Timeout(): // EAGAIN too
		return "; " + occupied
	}
	return ""
}

// timeout reports whether the TPM did not answer in time. Such a command is not repeated.
func (e *linkError) timeout() bool {
	return errors.Is(e.err, os.ErrDeadlineExceeded) || errors.Is(e.err, net.ErrClosed) || errors.Is(e.err, os.ErrClosed)
}

func (e *linkError) Unwrap() []error { return []error{keystore.ErrUnavailable, e.err} }
