package msl

import "github.com/msl-hsm/msl-hsm/msl/internal/wire"

// What a server remembers of tokens goes by what their issuer signed. What comes
// under a token that somebody has only seen is not remembered: the server keeps a
// session when a message has used it.

// findSession returns the remembered session of a master token, or the token.
func (s *Server) findSession(o wire.Object) (*Session, *MasterToken, error) {
	sealed, err := parseSealedMaster(o)
	if err != nil {
		return nil, nil, err
	}
	sealed.known = sealed.hash()
	if session, ok := s.sessions.Get(sealed.known); ok {
		t := *session.Token
		t.sealed = sealed
		return session, &t, nil
	}
	t, err := sealed.master()
	return nil, t, err
}

// openSession opens the session of a master token, to be remembered if it is used.
func (s *Server) openSession(t *MasterToken) (*Session, error) {
	return s.Issuer.open(t, s.Issuer.Shared || s.Custody == CustodyShared)
}

// used remembers the session that a message has used. An expired one serves to be
// renewed, once.
func (s *Server) used(t *MasterToken, session *Session) {
	if !t.expired(s.Issuer.now()) {
		s.sessions.Put(t.sealed.hash(), session)
	}
}

// offer remembers the session of a token that is about to be sent, so that its
// first use costs no unsealing.
func (s *Server) offer(session *Session) {
	t := session.Token
	kept := &Session{
		Token: &MasterToken{RenewalWindow: t.RenewalWindow, Expiration: t.Expiration,
			SequenceNumber: t.SequenceNumber, SerialNumber: t.SerialNumber},
		Identity: session.Identity, IssuerData: session.IssuerData, Keys: session.Keys,
	}
	s.sessions.Offer(t.sealed.hash(), kept)
}

// withdraw forgets the session of a token that was not sent.
func (s *Server) withdraw(session *Session) { s.sessions.Delete(session.Token.sealed.hash()) }

// openUser opens a user ID token, or finds it among those of its session. The
// user is noted in the message.
func (s *Server) openUser(in *incoming, o wire.Object) (*UserIDToken, error) {
	sealed, err := parseSealedUser(o)
	if err != nil {
		return nil, err
	}
	hash := sealed.hash()
	if in.session != nil {
		if known, ok := in.session.knownUser(hash); ok {
			t := known.token
			t.sealed, in.user = sealed, known.user
			return &t, nil
		}
	}
	t, err := sealed.user()
	if err != nil {
		return nil, err
	}
	if in.user, err = s.Issuer.OpenUser(t); err != nil {
		return nil, err
	}
	if in.session != nil {
		in.session.rememberUser(hash, knownUser{*t, in.user})
	}
	return t, nil
}
