package msl

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Served describes a message that a [Server] has finished with, for metrics, logs and
// monitoring. It contains no key, password, authentication data, token or payload.
type Served struct {
	Source string // where the message came from, as passed to Serve

	// Identity is the sender, only claimed unless Authenticated. It and the following
	// fields are empty if the message did not get that far.
	Identity      string
	Authenticated bool
	Scheme        string   // entity scheme of the sender, or empty under a master token
	User          string   // the authenticated user
	MessageID     int64    // or -1
	Message       *Message // as passed to the application; nil if that did not run
	Handshake     bool     // it only asked for keys
	KeyExchange   string   // scheme by which the answer delivers session keys
	KeyVersion    uint32   // of the issuer keys of the message's master token, or 0
	IssuedVersion uint32   // of the issuer keys of the answer's master token, or 0

	Read, Written int64         // bytes of the message and of the answer, without transport overhead
	Took          time.Duration // from the first byte until the transport had the whole answer

	// Response is 0 if the message was answered by the application, or with keys.
	// Otherwise the message was refused with Code, which is -1 if an application chose
	// the error itself.
	Response ResponseCode
	Code     Code

	// Err is why the message was refused or could not be answered, or why an answer broke
	// off; nil means success.
	Err   error
	Fault Fault // who has to act on Err
}

// Result says what became of the message: answered by the application, handshake if it was
// answered only with keys, refused with an error, or unanswered, also if its answer broke off.
func (v *Served) Result() string {
	switch {
	case v.Response != 0:
		return "refused"
	case v.Err != nil:
		return "unanswered"
	case v.Message == nil:
		return "handshake"
	}
	return "answered"
}

// A Fault says what caused a message not to be answered.
type Fault int

// The faults.
const (
	NoFault          Fault = iota
	FaultPeer              // the peer sent something wrong, or not permitted
	FaultNetwork           // the peer went away, or was too slow
	FaultLoad              // a limit on concurrent work of this side was reached
	FaultApplication       // the application, or the service behind it
	FaultKeyStore          // the HSM or TPM, or a key of this side
	FaultServer            // this side otherwise, such as its state
	Faults                 // how many there are
)

var faultNames = [Faults]string{"none", "peer", "network", "load", "application", "keystore", "server"}

// String returns one word for it.
func (f Fault) String() string {
	if f < 0 || f >= Faults {
		return "unknown"
	}
	return faultNames[f]
}

// An ending is the outcome of an incoming message.
type ending struct {
	message  *Message // passed to the application
	exchange string   // scheme of the issued keys
	issued   uint32   // version of the issuer keys of the issued token
	told     bool     // already reported
	source   string
	span     trace.Span   // of the message, or nil
	wrote    func() int64 // returns the bytes sent, if the memory does not count them; or nil
	cause    error        // of a refusal, or nil
	answer   errorAnswer
	fault    Fault
}

// finish makes a buffering transport send the rest of an answer.
func finish(w any) error {
	if f, ok := w.(interface{ Finish() error }); ok {
		return f.Finish()
	}
	return nil
}

// tell reports once a message that the server has finished with. err is what Serve
// returns.
func (in *incoming) tell(ctx context.Context, s *Server, a *account, err error) {
	if s.Report == nil && in.end.span == nil || in.end.told {
		return
	}
	in.end.told = true
	e := in.end
	v := Served{
		Source: e.source, Identity: in.sender.Identity, Authenticated: in.sender.Authenticated, Scheme: in.scheme,
		User: in.user, MessageID: in.messageID, Message: e.message, Handshake: in.handshake, KeyExchange: e.exchange, IssuedVersion: e.issued,
		Code: -1, Err: err,
	}
	if in.session != nil {
		v.KeyVersion = in.session.issuerVersion
	}
	v.Read, v.Written, v.Took = a.movement.totals()
	if e.wrote != nil {
		v.Written = e.wrote()
	}
	switch {
	case e.cause != nil:
		v.Fault, v.Err = e.fault, e.cause
		if err == nil {
			v.Response, v.Code = e.answer.response, e.answer.code
		}
	case err != nil:
		v.Fault = in.faultOf(ctx, err)
	}
	endSpan(in.end.span, &v)
	if s.Report != nil {
		s.Report(ctx, v)
	}
}

// faultOf says what caused a message that was not refused to get no answer.
func (in *incoming) faultOf(ctx context.Context, err error) Fault {
	switch {
	case in.err != nil:
		return FaultPeer
	case in.end.message != nil && toldByPeer(err):
		return FaultApplication
	case errors.Is(err, ErrNoAnswer):
		return FaultLoad
	case errors.Is(err, ErrTruncated), ctx.Err() != nil, !isCoded(err):
		return FaultNetwork
	}
	return in.refusalFault(ctx, codeOf(err), err)
}

// refusalFault says what caused a refusal. code is what the peer receives.
func (in *incoming) refusalFault(ctx context.Context, code Code, cause error) Fault {
	ran, ours := in.end.message != nil, code == ErrInternalException || code == ErrMSLEncodeError
	switch {
	case isAny(cause, errBusy, errWaiting, errUnknownVersion): // anyone can cause the last one
		return FaultLoad
	case isAny(cause, errGuesses), !ran && isAny(cause, ErrTruncated):
		return FaultPeer
	case ours && ofKeyStore(cause), code == ErrEntityNotFound && errors.Is(cause, keystore.ErrForeign): // an entity's keys that nothing opens
		return FaultKeyStore
	case ran && (ours || code == ErrMSLCommsFailure && !in.unread(cause)):
		return FaultApplication
	case errors.Is(cause, context.DeadlineExceeded), ctx.Err() != nil:
		return FaultNetwork
	case ours:
		return FaultServer
	}
	return FaultPeer
}

// unread reports whether a failure is that the message could not be read, such as the
// transport's refusal to read more of it.
func (in *incoming) unread(cause error) bool {
	err := in.body.failure()
	return err != nil && err != io.EOF && errors.Is(cause, err)
}

// isCoded reports whether an error has a code of the protocol.
func isCoded(err error) bool {
	var e *Error
	var c Code
	return errors.As(err, &e) || errors.As(err, &c)
}

// level is the log level of a refusal: an error is for an operator to act on.
func (f Fault) level() slog.Level {
	switch f {
	case FaultServer, FaultKeyStore:
		return slog.LevelError
	case FaultLoad, FaultApplication:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
