package agent

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A StatusError is an error with its own HTTP status. The UserAuth of a client may
// return one, too.
type StatusError struct {
	Status     int
	RetryAfter int // seconds until another try is worthwhile; 0 means never
	Err        error
}

// Error returns the text of Err.
func (e *StatusError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *StatusError) Unwrap() error { return e.Err }

// soon is how many seconds a program should wait before it tries again.
const soon = 1

// statusOf returns the HTTP status for a message that had no answer. The package
// documentation has the table.
func statusOf(err error) *StatusError {
	var own *StatusError
	var peer *msl.PeerError
	var instead *mslhttp.StatusError
	var network *url.Error
	var protocol *msl.Error
	switch {
	case errors.As(err, &own):
		return &StatusError{own.Status, own.RetryAfter, err}
	case errors.As(err, &peer):
		return peerStatus(err, peer)
	case errors.Is(err, msl.ErrAnswerUnread): // another try would make the server act twice
		return &StatusError{http.StatusBadGateway, 0, err}
	case isAny(err, context.DeadlineExceeded, os.ErrDeadlineExceeded):
		return &StatusError{http.StatusGatewayTimeout, soon, err}
	case isAny(err, keystore.ErrUnavailable, keystore.ErrBusy, keystore.ErrLost, keystore.ErrClosed, msl.ErrForgotten):
		return &StatusError{http.StatusServiceUnavailable, soon, err}
	case isAny(err, keystore.ErrNotFound, keystore.ErrWeakKey, keystore.ErrForeign, keystore.ErrPIN):
		return &StatusError{http.StatusInternalServerError, 0, err}
	case errors.As(err, &instead):
		return insteadStatus(err, instead)
	case errors.As(err, &network):
		return &StatusError{http.StatusBadGateway, soon, err}
	case errors.As(err, &protocol), errors.Is(err, msl.ErrTruncated):
		return &StatusError{http.StatusBadGateway, 0, err}
	}
	return &StatusError{http.StatusInternalServerError, 0, err}
}

func isAny(err error, kinds ...error) bool {
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// peerStatus returns the status for an MSL error.
func peerStatus(err error, e *msl.PeerError) *StatusError {
	switch e.Code {
	case msl.ErrEntityRevoked, msl.ErrMasterTokenIdentityRevoked, msl.ErrUserIDTokenRevoked:
		return &StatusError{http.StatusForbidden, 0, err}
	}
	switch e.Response {
	case msl.TransientFailure, msl.Expired, msl.Replayed:
		return &StatusError{http.StatusServiceUnavailable, soon, err}
	case msl.EntityReauth, msl.EntityDataReauth, msl.UserReauth, msl.UserDataReauth, msl.SSOTokenRejected:
		return &StatusError{http.StatusForbidden, 0, err}
	}
	return &StatusError{http.StatusBadGateway, 0, err}
}

// insteadStatus returns the status for an HTTP error that came instead of a message.
func insteadStatus(err error, e *mslhttp.StatusError) *StatusError {
	if e.Status == http.StatusRequestEntityTooLarge {
		return &StatusError{e.Status, 0, err}
	}
	if e.Status != http.StatusServiceUnavailable && e.Status != http.StatusTooManyRequests {
		return &StatusError{http.StatusBadGateway, 0, err}
	}
	after, parsing := strconv.ParseUint(e.RetryAfter, 10, 16)
	if parsing != nil || after == 0 {
		after = soon
	}
	return &StatusError{http.StatusServiceUnavailable, int(after), err}
}
