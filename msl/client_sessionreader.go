package msl

import (
	"bytes"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A sessionReader reads answers under the one master token that the request was sent
// with, or under none.
type sessionReader struct{ session *holding }

// findSession recognizes the request's master token by its signed bytes, since a peer may
// reorder the members of a token.
func (r sessionReader) findSession(o wire.Object) (*Session, *MasterToken, error) {
	s := r.session
	if s != nil && bytes.Equal(o.Raw(), s.token.Bytes()) && s.keys.Acquire() {
		return &Session{Token: s.token, Keys: s.keys}, s.token, nil
	}
	t, err := parseMasterToken(o)
	if err != nil {
		return nil, nil, err
	}
	if s == nil || !bytes.Equal(s.token.sealed.tokenData, t.sealed.tokenData) ||
		!bytes.Equal(s.token.sealed.signature, t.sealed.signature) || !s.keys.Acquire() {
		return nil, t, nil
	}
	return &Session{Token: t, Keys: s.keys}, t, nil
}

// openSession refuses all other sessions.
func (sessionReader) openSession(*MasterToken) (*Session, error) {
	return nil, fail(ErrMasterTokenUntrusted, "answer under a master token that the request did not use", nil)
}

// openUser leaves a user ID token unopened: only its issuer can open it.
func (sessionReader) openUser(_ *incoming, o wire.Object) (*UserIDToken, error) {
	return parseUserIDToken(o)
}

// used does nothing: the client already has the session.
func (sessionReader) used(*MasterToken, *Session) {}

func (sessionReader) gone(*MasterToken) {}
