package msl

import (
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// encodeError writes the inside of an error header. A peer is told the code and a text
// that is made for it, and nothing of the cause.
func encodeError(code Code, messageID int64, text, userMessage string, now time.Time) []byte {
	e := wire.NewEncoder(256)
	e.Begin()
	e.Int("timestamp", now.Unix())
	e.Int("messageid", messageID)
	e.Int("errorcode", int64(code.Response()))
	e.Int("internalcode", int64(code.Internal()))
	e.String("errormsg", text)
	if userMessage != "" {
		e.String("usermsg", userMessage)
	}
	e.End()
	return e.Encoded()
}

// parseError reads the inside of an error header, from verified bytes.
func parseError(o wire.Object, identity string) (*PeerError, int64, error) {
	f := wire.FieldsOf(o)
	e := &PeerError{Identity: identity, MessageID: f.Int("messageid"), Code: -1}
	timestamp := f.OptionalInt("timestamp", absent)
	response := f.Int("errorcode")
	if err := malformed(f, "error header"); err != nil {
		return nil, absent, err
	}
	if !inRange(e.MessageID) {
		return nil, absent, fail(ErrMessageIDOutOfRange, "error header", nil)
	}
	e.Response = Fail
	if response >= int64(Fail) && response <= int64(SSOTokenRejected) {
		e.Response = ResponseCode(response)
	}
	internal := f.OptionalInt("internalcode", absent)
	if f.Has("internalcode") {
		if internal < 0 {
			return nil, absent, withID(fail(ErrInternalCodeNegative, "error header", nil), e.MessageID)
		}
		e.Code = Code(internal - internalBase)
	}
	e.Message, e.User = f.OptionalString("errormsg"), f.OptionalString("usermsg")
	return e, timestamp, withID(malformed(f, "error header"), e.MessageID)
}
