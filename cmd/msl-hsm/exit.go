package main

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// Exit codes. They are documented in exitText and in docs/exit-codes.md.
const (
	exitFailure  = 1
	exitUsage    = 2
	exitRefused  = 3
	exitKeystore = 4
	exitSecret   = 5
	exitNoAnswer = 6
	exitHeld     = 7
	exitForced   = 8
)

const exitText = `Exit codes:

  0  done
  1  failed; the message says why
  2  wrong usage or configuration: correct the command line or the file
  3  the peer refused the message with an MSL error, or refused to enroll
     the device
  4  the key store is not available: module, token or key missing, or the
     HSM or TPM does not answer, or is another one
  5  a PIN, password or key file was refused or cannot be read. A PIN that was
     refused is never tried again by itself: tokens count and lock
  6  no answer: the server cannot be reached, sent no MSL message, or was
     slower than --timeout
  7  the device waits for a person to approve it at the server; after that, run
     the command again
  8  a server or an agent was told to stop and was ended by force: something did
     not end in time (server.shutdown, client.agent.shutdown), such as a call into
     a PKCS #11 module that does not return, or a second signal came. The log says
     what it waited for
`

// A coded error has an exit code of its own.
type coded struct {
	error
	code int
}

func (c coded) Unwrap() error { return c.error }

func usagef(format string, args ...any) error { return coded{fmt.Errorf(format, args...), exitUsage} }

func exitCode(err error) int {
	var own coded
	var peer *msl.PeerError
	var status *mslhttp.StatusError
	var request *url.Error
	var other *mslhttp.NotMessageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &peer):
		return exitRefused
	case errors.Is(err, keystore.ErrPIN):
		return exitSecret
	case errors.Is(err, enroll.ErrPending):
		return exitHeld
	case isAny(err, enroll.ErrRejected, enroll.ErrRevoked, enroll.ErrKeyRevoked, enroll.ErrPolicy, enroll.ErrEKCertificate, enroll.ErrRenewal):
		return exitRefused
	case keystoreFailed(err):
		return exitKeystore
	case errors.As(err, &status), errors.As(err, &request), errors.As(err, &other), errors.Is(err, msl.ErrNotMessage):
		return exitNoAnswer
	}
	return exitFailure
}

func keystoreFailed(err error) bool {
	return isAny(err,
		keystore.ErrNotFound, keystore.ErrBusy, keystore.ErrClosed, keystore.ErrUnavailable,
		keystore.ErrLost, keystore.ErrWeakKey, keystore.ErrForeign,
		identity.ErrOtherTPM, identity.ErrCleared, identity.ErrNotInitialized, identity.ErrNotEnrolled,
	)
}

func isAny(err error, kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}

// withNextStep adds to the error of a device's identity, or of the records of them,
// what to type next.
func withNextStep(err error) string {
	text := err.Error()
	for _, s := range []struct {
		kind error
		next string
	}{
		{identity.ErrNotInitialized, "run tpm init"},
		{identity.ErrNotEnrolled, "run tpm enroll"},
		{identity.ErrCleared, "run tpm init and tpm enroll again"},
		{identity.ErrOtherTPM, "if this TPM takes its place, run tpm init --replace"},
		{identity.ErrOtherEK, "add --replace for that"},
		{identity.ErrKeyRevoked, "run tpm init --new-keys and enroll again"},
		{identity.ErrRenewal, "run tpm init --new-keys and enroll again"},
		{identity.ErrDamaged, "restore it, or delete it and run tpm init again, and the device keeps its record"},
		{enroll.ErrInUse, "stop the msl-hsm that has it open, or ask it"},
	} {
		if errors.Is(err, s.kind) {
			text = strings.Replace(text, s.kind.Error(), s.kind.Error()+": "+s.next, 1)
		}
	}
	return text
}

func exitCodes() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitText}
}
