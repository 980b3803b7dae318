package msl

import (
	"errors"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// issueTokens makes the tokens that are due, whatever the application will say. A
// pushed message brings none.
func (w *ResponseWriter) issueTokens() (err error) {
	if w.push {
		w.payload.messageID, err = randomNumber(w.server.Issuer.Rand)
		w.userIDToken = w.in.userIDToken
		return err
	}
	if err := w.exchangeKeys(); err != nil {
		return err
	}
	w.userIDToken, err = w.userToken()
	return err
}

// wishes reports whether the application wants more than what was issued. A user
// who has a token keeps it.
func (w *ResponseWriter) wishes() bool { return w.wantsUser() || len(w.changes) > 0 }

func (w *ResponseWriter) wantsUser() bool {
	return w.user != "" && w.in.userIDToken == nil && !w.push
}

// wished is the header with all that the application wishes by now.
func (w *ResponseWriter) wished() (h header, err error) {
	h = header{messageID: w.payload.messageID, nonReplayableID: absent, capabilities: w.capabilities,
		keyResponse: w.keyResponse, userIDToken: w.userIDToken}
	if w.us.token != nil {
		h.sender = w.server.Name
	}
	if w.keyResponse != nil {
		h.recipient = w.recipient()
	}
	if w.wantsUser() {
		if h.userIDToken, err = w.userOf(w.user); err != nil {
			return h, err
		}
	}
	return h, w.tokens(&h)
}

// exchangeKeys issues a master token where one is asked for and due. Where every
// way fails, a failure of our own says more than that the peer asked in another
// way too.
func (w *ResponseWriter) exchangeKeys() error {
	in, s := w.in, w.server
	due := in.token == nil || in.token.renewable(s.Issuer.now()) || in.token.expired(s.Issuer.now())
	if !in.renewable || len(in.keyRequests) == 0 || !due {
		return nil
	}
	entity, err := s.entity(w.ctx, in.sender.Identity)
	if err != nil {
		return err
	}
	failed := fail(ErrKeyXFactoryNotFound, "key exchange", nil)
	for _, x := range s.exchanges {
		for _, request := range in.keyRequests {
			if request.scheme != x.Scheme() || x.Check(request.data) != nil {
				continue
			}
			err := fail(ErrKeyXIncorrectData, "key exchange", nil)
			if entity == nil || isPermitted(entity.KeyExchanges, x.Scheme()) {
				err = w.issue(x, request)
			}
			if errors.Is(err, keystore.ErrLost) {
				// The device forgot the new keys before they were sealed. Nobody
				// has seen them, so others do.
				err = w.issue(x, request)
			}
			if err == nil {
				return nil
			}
			if !internal(failed) {
				failed = err
			}
		}
	}
	return failed
}

// issue answers one key request with a new or a renewed master token. The keys
// are wrapped for the peer first and sealed into the token last.
func (w *ResponseWriter) issue(x Responder, request schemeData) error {
	s, in := w.server, w.in
	from := Requester{Identity: in.sender.Identity, Token: in.token, Custody: s.Custody, MessageID: in.messageID, Time: s.Issuer.now()}
	keys, keydata, err := x.Respond(w.ctx, from, request.data)
	if err != nil {
		return fail(codeOf(err), "key exchange", err)
	}
	if s.Custody == CustodyShared && keys.raw.Load() == nil {
		keys.Release()
		return fail(ErrInternalException, "key exchange", errors.New("the exchange kept no bytes for a shared token"))
	}
	if err := s.expect(w.ctx, s.Issuer.expiration()); err != nil {
		keys.Release()
		return err
	}
	var sequence int64
	if in.session != nil {
		sequence, err = s.State.Renew(w.ctx, in.session.Identity, in.token.SerialNumber, in.token.SequenceNumber)
		if err != nil {
			keys.Release()
			return fail(codeOf(err), "renew master token", err)
		}
	}
	session, err := s.Issuer.Issue(in.sender.Identity, in.session, sequence, keys)
	if err != nil {
		keys.Release()
		return err
	}
	w.issued = session
	w.keyResponse = &keyResponse{token: session.Token, schemeData: schemeData{scheme: x.Scheme(), data: keydata}}
	return nil
}

// masterToken is the token that what we issue is bound to, or nil.
func (w *ResponseWriter) masterToken() *MasterToken {
	if w.issued != nil {
		return w.issued.Token
	}
	return w.in.token
}

// userToken is the user ID token that goes along: that of the request, renewed or
// issued where it is due.
func (w *ResponseWriter) userToken() (*UserIDToken, error) {
	in, issuer, mt := w.in, w.server.Issuer, w.masterToken()
	old, now := in.userIDToken, issuer.now()
	switch {
	case old != nil && (in.renewable && old.renewable(now) || old.expired(now) || old.boundTo(mt) != nil):
		return issuer.IssueUser(in.user, mt, old)
	case old == nil && in.userAuth != nil && in.renewable && mt != nil:
		return issuer.IssueUser(in.user, mt, nil)
	}
	return old, nil
}

// userOf is a user ID token for a user whom the application names.
func (w *ResponseWriter) userOf(name string) (*UserIDToken, error) {
	mt := w.masterToken()
	if mt == nil {
		return nil, fail(ErrResponseRequiresMasterToken, "issue user id token", nil)
	}
	return w.server.Issuer.IssueUser(name, mt, nil)
}

// tokens sends the service tokens of the request back, with the application's
// changes.
func (w *ResponseWriter) tokens(h *header) error {
	h.serviceTokens = slices.Clone(w.in.serviceTokens)
	for _, c := range w.changes {
		t, err := c.token(w.server.ServiceTokens, w.masterToken(), h.userIDToken, h.capabilities.compression())
		if err != nil {
			return err
		}
		h.serviceTokens = putServiceToken(h.serviceTokens, t)
	}
	return nil
}
