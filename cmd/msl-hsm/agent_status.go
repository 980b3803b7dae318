package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A statusError has an HTTP status of its own. What is to be sent again has the
// seconds until then.
type statusError struct {
	error
	status int
	again  int
}

func (e statusError) Unwrap() error { return e.error }

// soon is how many seconds a program waits before it tries again.
const soon = 1

// statusOf is the HTTP status for a message that had no answer. docs/agent.md has the
// table.
func statusOf(err error) statusError {
	err = unread(err)
	var own statusError
	var peer *msl.PeerError
	var instead *mslhttp.StatusError
	var network *url.Error
	var protocol *msl.Error
	switch {
	case errors.As(err, &own):
		return statusError{err, own.status, own.again}
	case errors.As(err, &peer):
		return peerStatus(err, peer)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return statusError{err, http.StatusGatewayTimeout, soon}
	case errors.Is(err, keystore.ErrUnavailable), errors.Is(err, keystore.ErrBusy), errors.Is(err, keystore.ErrLost), errors.Is(err, keystore.ErrClosed):
		return statusError{err, http.StatusServiceUnavailable, soon}
	case keystoreFailed(err), errors.Is(err, keystore.ErrPIN):
		return statusError{err, http.StatusInternalServerError, 0}
	case errors.As(err, &instead):
		return insteadStatus(err, instead)
	case errors.As(err, &network):
		return statusError{err, http.StatusBadGateway, soon}
	case errors.As(err, &protocol), errors.Is(err, msl.ErrTruncated):
		return statusError{err, http.StatusBadGateway, 0}
	}
	return statusError{err, http.StatusInternalServerError, 0}
}

// peerStatus is that of an MSL error.
func peerStatus(err error, e *msl.PeerError) statusError {
	switch e.Code {
	case msl.ErrEntityRevoked, msl.ErrMasterTokenIdentityRevoked, msl.ErrUserIDTokenRevoked:
		return statusError{err, http.StatusForbidden, 0}
	}
	switch e.Response {
	case msl.TransientFailure, msl.Expired, msl.Replayed:
		return statusError{err, http.StatusServiceUnavailable, soon}
	case msl.EntityReauth, msl.EntityDataReauth, msl.UserReauth, msl.UserDataReauth, msl.SSOTokenRejected:
		return statusError{err, http.StatusForbidden, 0}
	}
	return statusError{err, http.StatusBadGateway, 0}
}

// insteadStatus is that of a server which answers no message.
func insteadStatus(err error, e *mslhttp.StatusError) statusError {
	if e.Status == http.StatusRequestEntityTooLarge {
		return statusError{err, e.Status, 0}
	}
	if e.Status != http.StatusServiceUnavailable && e.Status != http.StatusTooManyRequests {
		return statusError{err, http.StatusBadGateway, 0}
	}
	after, parsing := strconv.ParseUint(e.RetryAfter, 10, 16)
	if parsing != nil || after == 0 {
		after = soon
	}
	return statusError{err, http.StatusServiceUnavailable, int(after)}
}

// A refusedRequest is the body of a response without an answer.
type refusedRequest struct {
	Error    string `json:"error"`
	Response string `json:"response,omitempty"` // of the MSL error
	Code     int    `json:"code,omitempty"`     // its number
	Name     string `json:"name,omitempty"`
	Message  string `json:"message,omitempty"` // for the user, from the server
}

// refuse answers a request that is no message.
func refuse(w http.ResponseWriter, status int, text string) {
	writeRefusal(w, statusError{status: status}, refusedRequest{Error: text})
}

// fail answers a request whose message had no answer.
func (a *agent) fail(w http.ResponseWriter, e statusError) {
	r := refusedRequest{Error: oneLine(explain(e.error, a.config))}
	var peer *msl.PeerError
	if errors.As(e.error, &peer) {
		r.Response, r.Message = peer.Response.String(), peer.User
		if peer.Code >= 0 {
			r.Code, r.Name = int(peer.Code), peer.Code.Name()
		}
	}
	if a.client.machine != nil && errors.Is(e.error, keystore.ErrForeign) {
		r.Error += "; " + makeIdentity + ", and start the agent again"
	}
	writeRefusal(w, e, r)
}

func writeRefusal(w http.ResponseWriter, e statusError, r refusedRequest) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if e.again > 0 {
		h.Set("Retry-After", strconv.Itoa(e.again))
	}
	text, _ := json.Marshal(r) // strings and numbers always can be
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(e.status)
	_, _ = w.Write(append(text, '\n')) // a program that is gone needs no answer
}
