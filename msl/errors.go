package msl

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A ResponseCode tells a peer what to do about an error. It is sent as errorcode.
type ResponseCode int

// The response codes of the protocol.
const (
	Fail             ResponseCode = 1  // do not retry automatically
	TransientFailure ResponseCode = 2  // may work later
	EntityReauth     ResponseCode = 3  // master token not accepted: authenticate the entity again
	UserReauth       ResponseCode = 4  // user ID token not accepted: authenticate the user again
	KeyXRequired     ResponseCode = 5  // send again with key request data
	EntityDataReauth ResponseCode = 6  // entity authentication data not accepted: send other data
	UserDataReauth   ResponseCode = 7  // user authentication data not accepted: send other data
	Expired          ResponseCode = 8  // master token expired: renew it
	Replayed         ResponseCode = 9  // non-replayable id not accepted: use a new one
	SSOTokenRejected ResponseCode = 10 // single sign-on token not accepted: send other data
)

var responseNames = [...]string{
	Fail: "FAIL", TransientFailure: "TRANSIENT_FAILURE", EntityReauth: "ENTITY_REAUTH",
	UserReauth: "USER_REAUTH", KeyXRequired: "KEYX_REQUIRED", EntityDataReauth: "ENTITYDATA_REAUTH",
	UserDataReauth: "USERDATA_REAUTH", Expired: "EXPIRED", Replayed: "REPLAYED",
	SSOTokenRejected: "SSOTOKEN_REJECTED",
}

// known reports whether the protocol defines r.
func (r ResponseCode) known() bool { return r >= Fail && r <= SSOTokenRejected }

// String returns the protocol's name of r. An unknown number counts as FAIL.
func (r ResponseCode) String() string {
	if !r.known() {
		return fmt.Sprintf("FAIL(%d)", int(r))
	}
	return responseNames[r]
}

// A Code is an error of the protocol.
type Code int

const internalBase = 100000

// Internal returns the number that is sent as internalcode.
func (c Code) Internal() int { return internalBase + int(c) }

// codeNumbered is the code with that internalcode, or -1.
func codeNumbered(internal int64) Code {
	if internal < internalBase || internal > math.MaxInt32 {
		return -1
	}
	return Code(internal - internalBase)
}

// Name returns the protocol's symbolic name, or "" for an unknown code.
func (c Code) Name() string { return codeTable[c].name }

// Text returns the description of the code, which is also what a peer receives.
func (c Code) Text() string { return codeTable[c].text }

// Response returns the response code that belongs to c.
func (c Code) Response() ResponseCode {
	if row, ok := codeTable[c]; ok {
		return row.response
	}
	return Fail
}

// Codes lists every code of the protocol, in order.
func Codes() []Code { return slices.Sorted(maps.Keys(codeTable)) }

// Error returns the number, the name and the meaning.
func (c Code) Error() string {
	row, ok := codeTable[c]
	if !ok {
		return fmt.Sprintf("error %d", int(c))
	}
	return fmt.Sprintf("%d %s: %s", int(c), row.name, row.text)
}

// An Error is a failure to read, make or accept a message. errors.Is finds both
// its Code and its cause.
type Error struct {
	Code      Code
	Op        string // the operation that failed
	MessageID int64  // of the message that failed, or -1 if it could not be read
	Text      string // sent to the peer instead of the text of Code, in English; usually empty
	Err       error  // the cause, if there is more to say; never sent to a peer
}

// A LimitError says that a message of the peer exceeds this side's [Limits]. The
// message may otherwise be valid.
type LimitError struct {
	Limit string // the field of Limits
}

// Error names the limit.
func (e *LimitError) Error() string {
	what := map[string]string{
		"Header": "message header is longer", "Chunk": "payload chunk is longer", "Inflate": "compressed part grows more",
		"Depth": "message is nested deeper", "Tokens": "message has more service tokens or key requests",
	}[e.Limit]
	return "the peer's " + what + " than Limits." + e.Limit + " permits"
}

// exceeded returns the limit that err is about, or err. long is the limit for lengths.
func exceeded(err error, long string) error {
	switch {
	case errors.Is(err, wire.ErrTooLong):
		return &LimitError{long}
	case errors.Is(err, wire.ErrTooDeep):
		return &LimitError{"Depth"}
	case errors.Is(err, wire.ErrTooMany):
		return &LimitError{"Tokens"}
	}
	return err
}

// Unwrap returns the error that every exceeded limit wraps.
func (*LimitError) Unwrap() error { return wire.ErrLimit }

// Error returns what was done, the code and the cause. For a limit of this side it
// returns only the limit, since the code would suggest something worse. The text for the
// peer replaces the code's text, and a cause replaces the text for the peer.
func (e *Error) Error() string {
	if limit := (*LimitError)(nil); errors.As(e.Err, &limit) {
		return "msl: " + limit.Error()
	}
	s := "msl: "
	if e.Op != "" {
		s += e.Op + ": "
	}
	switch {
	case e.Text == "":
		s += e.Code.Error()
	case e.Err == nil:
		return s + fmt.Sprintf("%d %s: %s", int(e.Code), e.Code.Name(), e.Text)
	default:
		s += fmt.Sprintf("%d %s", int(e.Code), e.Code.Name())
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the code and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Code}
	}
	return []error{e.Code, e.Err}
}

// Failure returns an [*Error] for a scheme of another package: code, the operation, and
// the cause or nil. If the cause is a failure of this side, the code becomes
// [ErrInternalException], so that an HSM outage is not blamed on a peer's credentials.
// Use [KeyFailure] for errors of a key store about this side's own keys.
func Failure(code Code, op string, err error) error {
	if internal(err) {
		code = ErrInternalException
	}
	switch e := err.(type) {
	case Code:
		if e == code {
			err = nil // it says no more than the code
		}
	case *Error:
		if e.Code == code {
			return e
		}
	}
	return &Error{Code: code, Op: op, MessageID: -1, Err: err}
}

// KeyFailure is [Failure] for an operation with this side's own keys. The code applies
// only to the errors in about, such as [keystore.ErrBadData] when a peer's data was
// opened. Any other error, such as a key that is missing, weak or of the wrong kind, is
// not the peer's fault and becomes [ErrInternalException].
func KeyFailure(code Code, op string, err error, about ...error) error {
	if !isAny(err, about...) {
		code = ErrInternalException
	}
	return Failure(code, op, err)
}

func fail(code Code, op string, err error) error { return Failure(code, op, err) }

func isAny(err error, kinds ...error) bool {
	return err != nil && slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}

// internal reports whether err is a failure of this side, whatever was being done: a key
// store that could not answer, an unsuitable key of this side, or an error already
// classified as internal. ErrBadData and ErrForeign, which concern data, and ErrNotFound,
// which a directory returns for an entity, are not included: see KeyFailure.
func internal(err error) bool {
	if errors.Is(err, ErrMSLEncodeError) {
		return false // see the function lost
	}
	return deviceFailed(err) || isAny(err, keystore.ErrWeakKey, keystore.ErrWrongKey, keystore.ErrLocked, ErrInternalException)
}

// deviceFailed reports whether err says that a key store could not answer.
func deviceFailed(err error) bool {
	return passing(err) || isAny(err, keystore.ErrClosed, keystore.ErrPIN)
}

// passing reports whether another try may succeed.
func passing(err error) bool {
	return isAny(err, keystore.ErrUnavailable, keystore.ErrBusy, keystore.ErrLost)
}

// keysGone reports whether a key that was open before no longer exists: the next try has
// to open it again, from its sealed form or by its label.
func keysGone(err error) bool {
	return isAny(err, keystore.ErrLost, keystore.ErrForeign, keystore.ErrNotFound)
}

// ofKeyStore reports whether err is about this side's keys, or their store.
func ofKeyStore(err error) bool {
	return deviceFailed(err) || isAny(err, keystore.ErrWeakKey, keystore.ErrWrongKey, keystore.ErrLocked,
		keystore.ErrNotFound, keystore.ErrForeign, keystore.ErrBadData)
}

// lost says that an answer cannot be sent, after the application ran, because of a
// failure of this side. Its code does not ask the peer to try again, since the
// application would then do everything twice.
func lost(err error) error {
	if err == nil || !internal(err) {
		return err
	}
	return &Error{Code: ErrMSLEncodeError, Op: "answer", MessageID: idOf(err), Err: err}
}

// idOf is the id of the message that err is about, or -1. The cause of an application's
// own error may concern another message.
func idOf(err error) int64 {
	if own := (*AppError)(nil); errors.As(err, &own) {
		return -1
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.MessageID
	}
	return -1
}

// codeOf returns the code of err; an error without one is an internal failure.
func codeOf(err error) Code {
	if internal(err) {
		return ErrInternalException
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	var c Code
	if errors.As(err, &c) {
		return c
	}
	return ErrInternalException
}

// textOf returns the text about err for the peer; its code is known.
func textOf(err error, code Code) string {
	for e := (*Error)(nil); errors.As(err, &e); err = e.Err {
		if e.Code == code && e.Text != "" {
			return e.Text
		}
	}
	return code.Text()
}

// withID adds the id of the message to err, unless it has one.
func withID(err error, id int64) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) && e.MessageID >= 0 {
		return err
	}
	if e == nil {
		e = Failure(codeOf(err), "", err).(*Error)
	}
	noted := *e
	noted.MessageID = id
	return &noted
}

// A PeerError is an error message that a peer sent.
type PeerError struct {
	Identity string       // the sender, if its entity scheme proves it
	Response ResponseCode // what the peer asks for
	// Code is the error of the protocol that InternalCode stands for, or -1. An error
	// of the peer's application may have a Code without a Name.
	Code         Code
	InternalCode int64 // as the peer sent it, or -1 if it sent none
	MessageID    int64
	Message      string // for the log
	User         string // for the user, in a language of the request
}

// Error returns what the peer said.
func (e *PeerError) Error() string {
	s := "msl: peer answered " + e.Response.String()
	switch name := e.Code.Name(); {
	case name != "":
		s += fmt.Sprintf(" (%d %s)", int(e.Code), name)
	case e.InternalCode >= 0:
		s += fmt.Sprintf(" (internalcode %d)", e.InternalCode)
	}
	if e.Message != "" {
		s += fmt.Sprintf(": %q", e.Message)
	}
	return s
}

// Unwrap returns the peer's code.
func (e *PeerError) Unwrap() error {
	if e.Code < 0 {
		return nil
	}
	return e.Code
}
