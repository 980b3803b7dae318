package msl

import (
	"bytes"
	"errors"
	"io"
	"strings"
)

// message returns the message as the application sees it.
func (in *incoming) message() *Message {
	m := &Message{
		Identity: CanonicalName(in.sender.Identity), Scheme: in.scheme, User: CanonicalName(in.user),
		Encrypted: in.sender.Encrypted, Authenticated: in.sender.Authenticated,
		NonReplayable: in.nonReplayableID != absent,
		MessageID:     in.messageID, ServiceTokens: in.serviceTokens, Body: in.body,
		Languages: in.languages(),
	}
	if in.timestamp != absent {
		m.Timestamp = seconds(in.timestamp)
	}
	in.end.message = m
	return m
}

// applicationError adds the code to an application's rejection. An [*AppError] needs
// none. failed is why the answer could not begin, or nil; if it concerns a message that
// the peer sent in between, the error answers that message.
func (in *incoming) applicationError(err, failed error) error {
	if id := idOf(failed); id >= 0 {
		in.messageID = id
	}
	switch own := (*AppError)(nil); {
	case errors.As(err, &own):
		return err
	case errors.Is(err, ErrRejectEntity) && in.token != nil:
		err = fail(ErrMasterTokenRejectedByApp, "handle message", err)
	case errors.Is(err, ErrRejectEntity):
		err = fail(ErrEntityRejectedByApp, "handle message", err)
	case errors.Is(err, ErrRejectUser) && in.userIDToken != nil:
		err = fail(ErrUserIDTokenRejectedByApp, "handle message", err)
	case errors.Is(err, ErrRejectUser):
		err = fail(ErrUserRejectedByApp, "handle message", err)
	case toldByPeer(err):
		err = fail(ErrInternalException, "handle message", err)
	}
	if id := idOf(err); id >= 0 && id != in.messageID { // the application was someone else's peer
		err = &Error{Code: codeOf(err), Op: "handle message", MessageID: in.messageID, Err: err}
	}
	return withID(err, in.messageID)
}

// toldByPeer reports whether the code in err came from a peer of the application. It
// concerns what this side showed there; the sender of the message, which acts on codes
// automatically, would wrongly drop its own tokens.
func toldByPeer(err error) bool {
	var own *Error
	var peer *PeerError
	var code Code
	return !errors.As(err, &own) && errors.As(err, &peer) && (!errors.As(err, &code) || code == peer.Code)
}

// ReadAhead reads the body into memory until it has at least size bytes of it, or all of
// it; size is bounded by [Limits].Held. It reads at least one chunk with data. Body still
// returns what was read, and the memory counts as the message's. ReadAhead returns how
// many bytes Body has in memory, and whether they are the whole rest. The error is the
// one that Body returns after them. A body that is not a received message's is left
// alone, and reported as not whole.
func (m *Message) ReadAhead(size int) (have int64, whole bool, err error) {
	body, ok := m.Body.(*payloadReader)
	if !ok {
		return 0, false, nil
	}
	return body.ahead(size)
}

// Ahead returns a reader of what Body has in memory, which Body still returns. Use it before Body is
// read again.
func (m *Message) Ahead() io.Reader {
	body, ok := m.Body.(*payloadReader)
	if !ok {
		return strings.NewReader("")
	}
	body.mu.Lock()
	defer body.mu.Unlock()
	return bytes.NewReader(body.data)
}

// Peek returns a copy of up to size bytes of what Body has in memory, without reading
// more.
func (m *Message) Peek(size int) []byte {
	body, ok := m.Body.(*payloadReader)
	if !ok {
		return nil
	}
	body.mu.Lock()
	defer body.mu.Unlock()
	return append([]byte(nil), body.data[:min(size, len(body.data))]...)
}
