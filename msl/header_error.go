package msl

import (
	"errors"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// An errorAnswer is what an error message says.
type errorAnswer struct {
	code     Code // of the protocol, or -1 for an application's own error
	response ResponseCode
	internal int64 // or absent
	message  string
	user     string // or empty
}

// answerTo is what a peer is sent about a failure. For an error of the protocol, that is
// the code and a text meant for the peer, and nothing of the cause.
func answerTo(cause error) errorAnswer {
	var own *AppError
	if errors.As(cause, &own) {
		return own.answer()
	}
	code := codeOf(cause)
	return errorAnswer{code: code, response: code.Response(), internal: int64(code.Internal()), message: textOf(cause, code)}
}

// encode writes the inside of an error header.
func (a errorAnswer) encode(messageID int64, now time.Time) []byte {
	e := wire.NewEncoder(256 + len(a.message) + len(a.user))
	e.Begin()
	e.Int("timestamp", now.Unix())
	e.Int("messageid", messageID)
	e.Int("errorcode", int64(a.response))
	if a.internal > 0 { // the reference stack never sends zero
		e.Int("internalcode", a.internal)
	}
	if a.message != "" {
		e.String("errormsg", a.message)
	}
	if a.user != "" {
		e.String("usermsg", a.user)
	}
	e.End()
	return e.Encoded()
}

// parseError reads the inside of an error header, from verified bytes. Errors carry the
// message id once it is known.
func parseError(o wire.Object, identity string) (*PeerError, int64, error) {
	f := wire.FieldsOf(o)
	e := &PeerError{Identity: identity, MessageID: f.Int("messageid"), Code: -1, InternalCode: absent}
	if err := malformed(f, "error header"); err != nil {
		return nil, absent, err
	}
	if !inRange(e.MessageID) {
		return nil, absent, fail(ErrMessageIDOutOfRange, "error header", nil)
	}
	timestamp, err := e.parseRest(o, f)
	if err != nil {
		return nil, absent, withID(err, e.MessageID)
	}
	return e, timestamp, nil
}

func (e *PeerError) parseRest(o wire.Object, f *wire.Fields) (timestamp int64, err error) {
	timestamp = f.OptionalInt("timestamp", absent)
	response := f.Int("errorcode")
	e.Response = Fail
	if response == int64(ResponseCode(response)) && ResponseCode(response).known() {
		e.Response = ResponseCode(response)
	}
	internal := f.OptionalInt("internalcode", absent)
	if f.Has("internalcode") {
		if internal < 0 {
			return absent, fail(ErrInternalCodeNegative, "error header", nil)
		}
		e.InternalCode, e.Code = internal, codeNumbered(internal)
	}
	// An invalid text counts as absent, as in the reference stack: it is not a reason to
	// miss the code.
	e.Message, _ = o.String("errormsg")
	e.User, _ = o.String("usermsg")
	return timestamp, malformed(f, "error header")
}
