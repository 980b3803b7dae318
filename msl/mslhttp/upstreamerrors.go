package mslhttp

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/msl-hsm/msl-hsm/msl"
)

// Texts for the peer.
const (
	textUnreached = "the service behind the server cannot be reached"
	textLost      = "the service behind the server got the message, and its answer did not come or broke off"
	textTooLong   = "the message is longer than the service behind the server takes"

	textUnsendable = "the message cannot be passed on to the service behind the server"
)

var errTooLong = errors.New("the message is longer than may be buffered, and must not be streamed")

// A ServiceError is an answer of a service with a status that is not a success.
type ServiceError struct{ Status int }

// Error names the status.
func (e *ServiceError) Error() string { return "upstream answered " + e.status() }

func (e *ServiceError) status() string {
	if text := http.StatusText(e.Status); text != "" {
		return fmt.Sprintf("HTTP %d %s", e.Status, text)
	}
	return fmt.Sprintf("HTTP %d", e.Status)
}

// refusal is the error for a service that did not do what the message asked for. A
// failure of the service may be temporary; a refusal is not.
func refusal(status int) error {
	err := &ServiceError{status}
	code := msl.ErrMSLCommsFailure
	text := "the service behind the server answered " + err.status()
	switch {
	case status == http.StatusNotImplemented || status == http.StatusHTTPVersionNotSupported:
		text += ": it does not support such a request"
	case status/100 == 5 || status == http.StatusTooManyRequests:
		code = msl.ErrInternalException
	}
	return told(code, text, err)
}

// told is an error with a text for the peer.
func told(code msl.Code, text string, err error) error {
	return &msl.Error{Code: code, Op: "upstream", MessageID: -1, Text: text, Err: err}
}

// mayHaveActed is the error for a service that received the message and gave no complete
// response. The peer is not asked to try again, since the service would then receive the
// message twice.
func mayHaveActed(err error) error {
	var own *msl.Error
	if errors.As(err, &own) || errors.Is(err, msl.ErrTruncated) {
		return err // about the message, or the answer to it
	}
	return told(msl.ErrMSLCommsFailure, textLost, fmt.Errorf("it got the message and may have acted: %w", err))
}
