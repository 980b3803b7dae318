package msl

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
)

// A ResponseWriter takes the application's answer to a message. Nothing is sent
// before the first 64 KiB, a Flush, or the end of the handler; until then tokens
// can be set, and an error of the handler goes to the peer as an MSL error. It
// is for one goroutine.
type ResponseWriter struct {
	// Encrypted and Authenticated are what the answer needs. A request that had
	// them sets them; an answer that cannot have them becomes the error that
	// asks the peer for a key exchange.
	Encrypted, Authenticated bool

	ctx    context.Context
	server *Server
	in     *incoming
	out    io.Writer

	pending []byte
	user    string
	changes []TokenChange

	push    bool // the message answers nothing
	started bool
	payload *payloadWriter
	issued  *Session // by the key exchange of this answer
	us      identification

	conn  *Conn    // of a peer-to-peer network, or nil
	talk  *attempt // our own tokens there
	sent  *outgoing
	waits bool // the peer will answer
	got   *MasterToken
}

// SetServiceToken gives the peer a service token, or takes it away where data is
// empty. It replaces one of the same name and binding.
func (w *ResponseWriter) SetServiceToken(name string, data []byte, bind Binding) {
	w.changes = append(w.changes, TokenChange{name, data, bind})
}

// SetUser names the user that the peer shall have a user ID token for, where the
// application has authenticated one by itself.
func (w *ResponseWriter) SetUser(name string) { w.user = name }

// Write adds application data to the answer.
func (w *ResponseWriter) Write(p []byte) (n int, err error) {
	if !w.started {
		n = min(flushSize-len(w.pending), len(p))
		if w.pending = append(w.pending, p[:n]...); len(w.pending) < flushSize {
			return n, nil
		}
		if err := w.begin(); err != nil {
			return 0, err
		}
	}
	more, err := w.payload.Write(p[n:])
	return n + more, err
}

// Flush sends what was written so far.
func (w *ResponseWriter) Flush() error {
	if !w.started {
		if err := w.begin(); err != nil {
			return err
		}
	}
	return w.payload.Flush()
}

// begin sends the header and what was written.
func (w *ResponseWriter) begin() error {
	if err := w.start(); err != nil {
		return err
	}
	pending := w.pending
	w.pending = nil
	if len(pending) < flushSize {
		w.payload.buffer = pending
		return nil
	}
	_, err := w.payload.Write(pending)
	return err
}

// close ends the answer.
func (w *ResponseWriter) close() error {
	if !w.started {
		if err := w.begin(); err != nil {
			return err
		}
	}
	if err := w.payload.Close(); err != nil || w.conn == nil {
		return err
	}
	return w.endPeer()
}

func (w *ResponseWriter) release() {
	w.us.release()
	if w.sent != nil {
		w.sent.abandon()
	}
	if w.talk != nil {
		w.talk.finish(w.got)
		if w.talk.reply != w.in {
			w.talk.answering(nil)
		}
		return // what was issued went with it
	}
	if w.issued != nil {
		w.issued.Release()
	}
}

// start makes the header of the answer, with the tokens that are due, and sends
// it.
func (w *ResponseWriter) start() error {
	if w.conn != nil {
		return w.startPeer()
	}
	h := header{
		messageID:       next(w.in.messageID),
		nonReplayableID: absent,
		capabilities:    w.in.capabilities.intersect(w.server.Capabilities),
	}
	if err := w.prepare(&h); err != nil {
		return err
	}
	if err := w.identify(&h); err != nil {
		return err
	}
	if err := w.checkProtection(); err != nil {
		return err
	}
	if err := w.userToken(&h); err != nil {
		return err
	}
	if err := w.tokens(&h); err != nil {
		return err
	}
	now := w.server.Issuer.now()
	message, err := w.us.encodeMessage("headerdata", h.encode(now))
	if err != nil {
		return err
	}
	w.payload = &payloadWriter{out: w.out, protector: w.payloadProtector(), messageID: h.messageID, compression: h.capabilities.compression()}
	w.started = true
	_, err = w.out.Write(message)
	return err
}

// prepare issues the keys that an answer brings. A pushed message brings none.
func (w *ResponseWriter) prepare(h *header) (err error) {
	if !w.push {
		return w.exchangeKeys(h)
	}
	h.messageID, err = randomNumber(w.server.Issuer.Rand)
	return err
}

// identify says who answers: whoever asked with a master token is answered with
// it, also where the answer delivers a new one.
func (w *ResponseWriter) identify(h *header) (err error) {
	if w.in.token == nil {
		w.us, err = localIdentification(w.ctx, w.server.Entity)
		return err
	}
	key := w.in.session.key()
	key.Rand = w.server.Issuer.Rand
	w.us = identification{token: w.in.token, protector: key}
	h.sender = w.server.Name
	return nil
}

func (w *ResponseWriter) payloadProtector() Protector {
	if w.issued == nil {
		return w.us.protector
	}
	key := w.issued.key()
	key.Rand = w.server.Issuer.Rand
	return key
}

// checkProtection refuses an answer that cannot be what it must.
func (w *ResponseWriter) checkProtection() error {
	withKeys := w.issued != nil || w.in.token != nil
	if w.Authenticated && !withKeys && !w.server.Entity.Authenticates() {
		return fail(ErrResponseRequiresIntegrityProtection, "answer", nil)
	}
	if w.Encrypted && !withKeys && !w.server.Entity.Encrypts() {
		return fail(ErrResponseRequiresEncryption, "answer", nil)
	}
	return nil
}

// exchangeKeys issues a master token where one is asked for and due.
func (w *ResponseWriter) exchangeKeys(h *header) error {
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
			if entity != nil && !permitted(entity.KeyExchanges, x.Scheme()) {
				failed = fail(ErrKeyXIncorrectData, "key exchange", nil)
				continue
			}
			keydata, err := w.issue(x, request)
			if err == nil {
				h.keyResponse = &keyResponse{token: w.issued.Token, schemeData: schemeData{scheme: x.Scheme(), data: keydata}}
				return nil
			}
			failed = err
		}
	}
	return failed
}

// issue answers one key request with a new or a renewed master token. The keys
// are wrapped for the peer first and sealed into the token last.
func (w *ResponseWriter) issue(x KeyExchange, request schemeData) (keydata []byte, err error) {
	s, in := w.server, w.in
	from := Requester{Identity: in.sender.Identity, Token: in.token, Custody: s.Custody, MessageID: in.messageID, Time: s.Issuer.now()}
	keys, keydata, err := x.Respond(w.ctx, from, request.data)
	if err != nil {
		return nil, fail(codeOf(err), "key exchange", err)
	}
	if s.Custody == CustodyShared && keys.raw.Load() == nil {
		keys.Release()
		return nil, fail(ErrMasterTokenKeyCreationError, "key exchange", errors.New("the exchange kept no bytes for a shared token"))
	}
	if err := s.expect(w.ctx, s.Issuer.expiration()); err != nil {
		keys.Release()
		return nil, err
	}
	var sequence int64
	if in.session != nil {
		sequence, err = s.State.Renew(w.ctx, in.session.Identity, in.token.SerialNumber, in.token.SequenceNumber)
		if err != nil {
			keys.Release()
			return nil, fail(codeOf(err), "renew master token", err)
		}
	}
	session, err := s.Issuer.Issue(in.sender.Identity, in.session, sequence, keys)
	if err != nil {
		keys.Release()
		return nil, err
	}
	w.issued = session
	s.remember(session)
	return keydata, nil
}

// remember keeps the session of a token that was just issued, so that its first
// use costs no unsealing.
func (s *Server) remember(session *Session) {
	t := session.Token
	kept := &Session{
		Token: &MasterToken{RenewalWindow: t.RenewalWindow, Expiration: t.Expiration,
			SequenceNumber: t.SequenceNumber, SerialNumber: t.SerialNumber},
		Identity: session.Identity, IssuerData: session.IssuerData, Keys: session.Keys,
	}
	s.sessions.Put(sha256.Sum256(t.Bytes()), kept)
}

// masterToken is the token that what we issue is bound to, or nil.
func (w *ResponseWriter) masterToken() *MasterToken {
	if w.issued != nil {
		return w.issued.Token
	}
	return w.in.token
}

// userToken sends the user ID token along, renewed or issued where it is due.
func (w *ResponseWriter) userToken(h *header) (err error) {
	in, issuer, mt := w.in, w.server.Issuer, w.masterToken()
	old, now := in.userIDToken, issuer.now()
	h.userIDToken = old
	switch {
	case w.push:
	case old != nil:
		if in.renewable && old.renewable(now) || old.expired(now) || old.boundTo(mt) != nil {
			h.userIDToken, err = issuer.IssueUser(in.user, mt, old)
		}
	case w.user != "" && mt == nil:
		return fail(ErrResponseRequiresMasterToken, "issue user id token", nil)
	case w.user != "":
		h.userIDToken, err = issuer.IssueUser(w.user, mt, nil)
	case in.userAuth != nil && in.renewable && mt != nil:
		h.userIDToken, err = issuer.IssueUser(in.user, mt, nil)
	}
	return err
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
