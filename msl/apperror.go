package msl

import (
	"math"
	"unicode/utf8"
)

// An AppError is an application's own error. If a handler returns one, possibly wrapped,
// before any of its answer was sent, the peer receives it as a [*PeerError]. It takes
// precedence over any [Code] in the same chain of errors, including one that reports a
// failed key store.
type AppError struct {
	// Response is what the peer is asked to do. Clients act on it on their own: for
	// UserReauth they prove the user anew, for TransientFailure and Fail they give up.
	// Zero and unknown numbers are sent as Fail.
	Response ResponseCode

	// InternalCode is a number for the peer, from 1 to 2^31-1; for any other, none is
	// sent. The protocol's own errors use 100000 to 109999.
	InternalCode int64

	// Message is for the logs of the peer, and User is shown to its user, in a
	// language of [Message].Languages. An empty User is looked up in Server.Messages.
	// Each is cut off after 4096 bytes. Both are sent as the server's entity scheme
	// protects them: few schemes encrypt.
	Message, User string

	// Err is the cause, or nil. It goes to the server's log, and never to the peer.
	Err error
}

// Error returns what the peer receives, and the cause.
func (e *AppError) Error() string {
	s := "application: " + e.answer().response.String()
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *AppError) Unwrap() error { return e.Err }

// answer is what the peer receives.
func (e *AppError) answer() errorAnswer {
	a := errorAnswer{code: -1, response: e.Response, internal: absent, message: cut(e.Message, maxErrorText), user: cut(e.User, maxErrorText)}
	if !a.response.known() {
		a.response = Fail
	}
	if e.InternalCode > 0 && e.InternalCode <= math.MaxInt32 { // the reference stack reads 32 bits
		a.internal = e.InternalCode
	}
	return a
}

// maxErrorText bounds a text in an error message, in bytes: far less than a peer accepts
// in a header.
const maxErrorText = 4096

// cut shortens a text to at most end bytes, never within a character.
func cut(s string, end int) string {
	if len(s) <= end {
		return s
	}
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
