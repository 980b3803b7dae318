package admin

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/msl/state/etcd"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// ErrOtherKeys: a state was used with keys other than the existing ones.
var ErrOtherKeys = errors.New("the state belongs to other keys")

// kinds maps the errors that both sides know to the codes that represent them.
var kinds = []struct {
	code string
	err  error
}{
	{"unknown", state.ErrUnknown},
	{"name", state.ErrName},
	{"exists", bolt.ErrExists},
	{"revoked", state.ErrRevoked},
	{"not-revoked", state.ErrNotRevoked},
	{"conflict", state.ErrConflict},
	{"other-keys", ErrOtherKeys},
	{uncertain, etcd.ErrUncertain},
	{"device-unknown", enroll.ErrUnknown},
	{"device-name", enroll.ErrName},
	{"device-state", enroll.ErrState},
	{"device-key", enroll.ErrKey},
	{"device-page", enroll.ErrQuery},
	{"nonce", enroll.ErrNonce},
	{"attestation", enroll.ErrAttestation},
	{"signature", enroll.ErrSignature},
}

// A problem is an error in the form in which it is sent. Without a code it matches none
// of the kinds.
type problem struct {
	Code  string `json:"code,omitempty"`
	Error string `json:"error"`
}

func problemOf(err error) problem {
	for _, kind := range kinds {
		if errors.Is(err, kind.err) {
			return problem{kind.code, err.Error()}
		}
	}
	return problem{Error: err.Error()}
}

// uncertain is the code for a change that may have been made.
const uncertain = "uncertain"

// configuration is the code for an error in a file that the server read.
const configuration = "configuration"

// A Problem is an error of a page in the form that commands understand.
func Problem(err error) any {
	if exit.Code(err) == exit.Usage {
		return problem{configuration, exit.OneLine(err)}
	}
	return problem{Error: exit.OneLine(err)}
}

// problemsOf has a problem for each error, the zero one for nil.
func problemsOf(errs []error) []problem {
	list := make([]problem, len(errs))
	for i, err := range errs {
		if err != nil {
			list[i] = problemOf(err)
		}
	}
	return list
}

// errOrNil returns err, or nil for the zero problem.
func (p problem) errOrNil() error {
	if p == (problem{}) {
		return nil
	}
	return p.err()
}

func (p problem) err() error {
	if p.Code == configuration {
		return exit.Usagef("%s", p.Error)
	}
	for _, kind := range kinds {
		if p.Code == kind.code {
			return &remoteError{p.Error, kind.err}
		}
	}
	return fmt.Errorf("running server: %s", p.Error)
}

// A remoteError has the server's text and the kind of its error.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

// A requestError says that a request does not have the form of its call.
type requestError struct{ error }

func (e requestError) Unwrap() error { return e.error }

// statusOf returns the HTTP status for an error.
func statusOf(err error) int {
	code := problemOf(err).Code
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return http.StatusRequestEntityTooLarge
	case errors.As(err, new(requestError)):
		return http.StatusBadRequest
	case code != "" && code != uncertain:
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}
