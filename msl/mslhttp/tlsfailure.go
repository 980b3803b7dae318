package mslhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

// A FailureClass says how a server handles failures of one kind: of TLS, of the
// connection, of a device that holds keys, or of a message. The layers are kept apart: a
// TLS failure says nothing about MSL credentials, and an MSL error never ends a TLS
// connection with an alert.
type FailureClass struct {
	Name   string     // in logs and counters
	Level  slog.Level // of log entries
	Answer string     // what the peer receives
	Status int        // HTTP status, or 0 if the connection allows no answer
	MSL    bool       // the answer is an MSL error message
	Blames bool       // the answer may say that credentials were not accepted

	is func(error) bool
}

const nothing = "nothing: the connection is closed"

// FailureClasses lists the classes. An error belongs to the first class that matches, so
// that a TLS failure inside an MSL error stays a TLS failure.
func FailureClasses() []FailureClass {
	return []FailureClass{
		{Name: "application", Level: slog.LevelInfo, Answer: "the MSL error that the application chose", Status: 200, MSL: true, Blames: true, is: ofApplication},
		{Name: "tls_key", Level: slog.LevelError, Answer: "the alert internal_error or handshake_failure: the key of this side did not sign", is: all(isAlert(tlsalert.Sent), deviceFailed)},
		{Name: "not_tls", Level: slog.LevelInfo, Answer: "HTTP 400 where it was plain HTTP, else the alert unexpected_message", is: as[tls.RecordHeaderError]()},
		{Name: "tls_alert_sent", Level: slog.LevelWarn, Answer: "the alert alone", is: isAlert(tlsalert.Sent)},
		{Name: "tls_alert_received", Level: slog.LevelWarn, Answer: nothing, is: isAlert(tlsalert.Received)},
		{Name: "tls_truncated", Level: slog.LevelInfo, Answer: nothing, is: wraps(ErrTLSTruncated)},
		{Name: "device", Level: slog.LevelError, Answer: "an MSL error that asks to try again later (TRANSIENT_FAILURE), or HTTP 503 where no key can sign one", Status: 200, MSL: true, is: deviceFailed},
		{Name: "peer_error", Level: slog.LevelInfo, Answer: "HTTP 204: nobody answers an error", Status: 204, is: as[*msl.PeerError]()},
		{Name: "message_truncated", Level: slog.LevelInfo, Answer: "HTTP 400: the payload broke off", Status: 400, is: wraps(msl.ErrTruncated)},
		{Name: "no_answer", Level: slog.LevelWarn, Answer: "HTTP 503 with Retry-After: the bound on signed answers is reached, or the key of this side is out of reach", Status: 503, is: wraps(msl.ErrNoAnswer)},
		{Name: "connection", Level: slog.LevelInfo, Answer: nothing, is: connectionFailed},
		{Name: "credentials", Level: slog.LevelInfo, Answer: "an MSL error that asks for other credentials", Status: 200, MSL: true, Blames: true, is: blames},
		{Name: "message", Level: slog.LevelInfo, Answer: "an MSL error about the message or its sender", Status: 200, MSL: true, Blames: true, is: as[msl.Code]()},
		{Name: "internal", Level: slog.LevelError, Answer: "an MSL error that asks to try again later (TRANSIENT_FAILURE)", Status: 200, MSL: true, is: func(error) bool { return true }},
	}
}

// Classify returns the class of an error.
func Classify(err error) FailureClass {
	classes := FailureClasses()
	for _, c := range classes {
		if c.is(err) {
			return c
		}
	}
	return classes[len(classes)-1]
}

// ofApplication reports whether the peer gets an application's own error.
func ofApplication(err error) bool {
	return as[*msl.AppError]()(err) && !errors.Is(err, msl.ErrTruncated)
}

func wraps(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func as[T error]() func(error) bool {
	return func(err error) bool {
		var target T
		return errors.As(err, &target)
	}
}

func all(a, b func(error) bool) func(error) bool {
	return func(err error) bool { return a(err) && b(err) }
}

func isAlert(want tlsalert.Origin) func(error) bool {
	return func(err error) bool {
		_, origin, ok := tlsalert.From(err)
		return ok && origin == want
	}
}

func connectionFailed(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled)
}

func deviceFailed(err error) bool {
	for _, device := range []error{keystore.ErrUnavailable, keystore.ErrBusy, keystore.ErrClosed, keystore.ErrLost, keystore.ErrPIN} {
		if errors.Is(err, device) {
			return true
		}
	}
	return false
}

// blames reports whether an MSL error is about the identity of the sender or its user.
func blames(err error) bool {
	var code msl.Code
	if !errors.As(err, &code) {
		return false
	}
	switch code.Response() {
	case msl.EntityReauth, msl.UserReauth, msl.EntityDataReauth, msl.UserDataReauth, msl.SSOTokenRejected:
		return true
	}
	return false
}
