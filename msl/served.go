package msl

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Served is a message that a [Server] is done with, for those who count, log or watch.
// It has no key, password, authentication data, token or payload.
type Served struct {
	Source string // where the message came from, as Serve was told

	// Identity is the sender, and a mere claim unless Authenticated. It is empty if the
	// message did not get that far, and so is what follows.
	Identity      string
	Authenticated bool
	Scheme        string   // entity scheme of the sender, or empty under a master token
	User          string   // who was authenticated
	MessageID     int64    // or -1
	Message       *Message // as the application got it; nil if it did not run
	Handshake     bool     // it only asked for keys
	KeyExchange   string   // scheme by which the answer delivers session keys
	KeyVersion    uint32   // of the issuer keys of the master token that the message used, or 0
	IssuedVersion uint32   // of the issuer keys of the master token in the answer, or 0

	Read, Written int64         // bytes of the message and of the answer, without the transport's
	Took          time.Duration // from the first byte until the transport had the whole answer

	// Response is 0 if the message was answered with what the application said, or with
	// keys. Otherwise it was refused, for Code, which is -1 if an application chose the
	// error itself.
	Response ResponseCode
	Code     Code

	// Err is why the message was refused, or could not be answered at all, or why an
	// answer broke off; nil means that all went well.
	Err   error
	Fault Fault // who has to do something about Err
}

// A Fault says whose fault it is that a message was not answered.
type Fault int

// The faults.
const (
	NoFault          Fault = iota
	FaultPeer              // what the peer sent is wrong, or not permitted
	FaultNetwork           // the peer went away, or was too slow
	FaultLoad              // a bound on what this side does at a time was reached
	FaultApplication       // the application failed, or the service behind it
	FaultKeyStore          // the HSM or TPM, or a key that this side needs
	FaultServer            // this side in another way, such as its state
	Faults                 // their number
)

var faultNames = [Faults]string{"none", "peer", "network", "load", "application", "keystore", "server"}

// String returns a word for it.
func (f Fault) String() string {
	if f < 0 || f >= Faults {
		return "unknown"
	}
	return faultNames[f]
}

// An ending is what became of an incoming message.
type ending struct {
	message  *Message // that the application got
	exchange string   // scheme of the keys that were issued
	issued   uint32   // version of the issuer keys of the token that was issued
	source   string
	span     trace.Span   // of the message, or nil
	wrote    func() int64 // bytes that were sent, where the memory does not count them; or nil
	told     bool         // it was reported
	cause    error        // of a refusal, or nil
	answer   errorAnswer
	fault    Fault
}

// finish has a transport that holds an answer back send the rest.
func finish(w any) error {
	if f, ok := w.(interface{ Finish() error }); ok {
		return f.Finish()
	}
	return nil
}

// tell reports a message with which the server is done, once. err is what Serve returns.
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

// faultOf says whose fault it is that a message which was not refused got no answer.
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

// refusalFault says whose fault a refusal is. code is what the peer is told.
func (in *incoming) refusalFault(ctx context.Context, code Code, cause error) Fault {
	ran, ours := in.end.message != nil, code == ErrInternalException || code == ErrMSLEncodeError
	switch {
	case isAny(cause, errBusy, errWaiting, errUnknownVersion): // anybody can cause the last one
		return FaultLoad
	case isAny(cause, errGuesses), !ran && isAny(cause, ErrTruncated):
		return FaultPeer
	case ours && ofKeyStore(cause), code == ErrEntityNotFound && errors.Is(cause, keystore.ErrForeign): // keys of an entity that nothing opens
		return FaultKeyStore
	case ran && (ours || code == ErrMSLCommsFailure):
		return FaultApplication
	case errors.Is(cause, context.DeadlineExceeded), ctx.Err() != nil:
		return FaultNetwork
	case ours:
		return FaultServer
	}
	return FaultPeer
}

// isCoded reports whether an error has a code of the protocol.
func isCoded(err error) bool {
	var e *Error
	var c Code
	return errors.As(err, &e) || errors.As(err, &c)
}

// level is that at which a refusal is logged: an error is for an operator to do
// something about.
func (f Fault) level() slog.Level {
	switch f {
	case FaultServer, FaultKeyStore:
		return slog.LevelError
	case FaultLoad, FaultApplication:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
