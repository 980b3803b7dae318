package msl

import (
	"context"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// What follows is for schemes whose data holds tokens or other authentication
// data: MT_PROTECTED and USER_ID_TOKEN.

// OpenMasterToken opens a master token of our issuer, or finds its session among
// the remembered ones. It does not ask whether the token is expired or its
// entity revoked, nor does it remember the session: whoever shows the token need not
// be its holder. The caller releases the session.
func (s *Server) OpenMasterToken(t *MasterToken) (*Session, error) {
	s.init()
	if session, ok := s.sessions.cache.Get(t.sealed.hash()); ok {
		return session, nil
	}
	return s.sessions.openSession(t)
}

// FindEntityScheme reads an encoded entityauthdata object and returns the scheme
// that it names and the scheme's authdata. Errors are those of a message: a
// malformed object, an unknown scheme, a known one that is not configured.
func FindEntityScheme(configured []EntityScheme, encoded []byte) (EntityScheme, []byte, error) {
	const op = "entity authentication data"
	o, err := wire.Parse(encoded, wire.Limits{})
	if err != nil {
		return nil, nil, fail(ErrMSLParseError, op, err)
	}
	data, err := parseSchemeData(o, "authdata", op)
	if err != nil {
		return nil, nil, err
	}
	scheme, err := pick(configured, data.scheme, entitySchemes, ErrUnidentifiedEntityAuthScheme, ErrEntityAuthFactoryNotFound)
	return scheme, data.data, err
}

// EncodeEntityData writes an entityauthdata object, as FindEntityScheme reads it.
func EncodeEntityData(scheme string, authdata []byte) []byte {
	return schemeData{scheme: scheme, data: authdata}.encode("authdata")
}

// HeldTokens are what a client holds at one moment. What is not there is nil.
type HeldTokens struct {
	MasterToken *MasterToken
	Keys        *SessionKeys // of the master token
	UserIDToken *UserIDToken
}

// HeldTokens returns the client's master token, its session keys and the user ID
// token of a local user. The caller releases the keys.
func (c *Client) HeldTokens(ctx context.Context, user string) (HeldTokens, error) {
	if err := c.load(ctx); err != nil {
		return HeldTokens{}, err
	}
	t, _, _, err := c.snapshot()
	if err != nil {
		return HeldTokens{}, err
	}
	held := HeldTokens{MasterToken: t.master(), UserIDToken: t.user(user)}
	if t.session != nil {
		held.Keys = t.session.keys
	}
	return held, nil
}
