package msl

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An issuance is what an answer gives the peer: a master token by key exchange, user ID
// tokens and service tokens, both those that are due and those that the application
// requests.
type issuance struct {
	ctx    context.Context
	server *Server
	in     *incoming // the message being answered
	push   bool      // for a pushed message, not for the answer

	uncompressed bool // for the answer and the tokens in it

	delivered *Session // given by the answer that preceded a pushed message, or nil

	user    string        // requested by the application: the user who gets a user ID token
	changes []TokenChange // requested by the application: service tokens

	messageID    int64
	capabilities *Capabilities
	session      *Session // issued by the key exchange of this answer
	keyResponse  *keyResponse
	userIDToken  *UserIDToken
}

// prepare makes the tokens that are due, whatever the application will say. A pushed
// message brings none.
func (i *issuance) prepare() (err error) {
	i.messageID = next(i.in.messageID)
	i.capabilities = i.in.capabilities.intersect(i.server.Capabilities)
	if i.push {
		i.messageID, err = randomNumber(i.server.Issuer.Rand)
		if i.delivered == nil {
			i.userIDToken = i.in.userIDToken
		}
		return err
	}
	if err := i.exchangeKeys(); err != nil {
		return err
	}
	i.userIDToken, err = i.userToken()
	return err
}

// wishes reports whether the application wants tokens that were not issued yet. A user
// who has a token keeps it.
func (i *issuance) wishes() bool { return i.wantsUser() || len(i.changes) > 0 }

func (i *issuance) wantsUser() bool {
	return i.user != "" && i.in.userIDToken == nil && !i.push
}

// header returns the header with everything the application has requested so far.
func (i *issuance) header() (h header, err error) {
	h = header{messageID: i.messageID, nonReplayableID: absent, capabilities: i.capabilities,
		keyResponse: i.keyResponse, userIDToken: i.userIDToken}
	if i.keyResponse != nil {
		h.recipient = i.recipient()
	}
	if i.wantsUser() {
		if h.userIDToken, err = i.userOf(i.user); err != nil {
			return h, err
		}
	}
	return h, i.addServiceTokens(&h)
}

// exchangeKeys issues a master token if one is requested and due. If every exchange
// fails, a failure of this side takes precedence over an error that makes the peer ask in
// another way.
func (i *issuance) exchangeKeys() error {
	in, s := i.in, i.server
	due := in.token == nil || in.token.renewable(s.Issuer.now()) || in.token.expired(s.Issuer.now())
	if !in.renewable || len(in.keyRequests) == 0 || !due {
		return nil
	}
	entity, err := s.entity(i.ctx, in.sender.Identity)
	if err != nil {
		return err
	}
	failed, tried := fail(ErrKeyXFactoryNotFound, "key exchange", nil), 0
	for _, x := range s.exchanges {
		for _, request := range in.keyRequests {
			if request.scheme != x.Scheme() || x.Check(request.data) != nil {
				continue
			}
			err := fail(ErrKeyXIncorrectData, "key exchange", nil)
			if entity == nil || isPermitted(entity.KeyExchanges, x.Scheme()) {
				if tried++; tried > maxExchanges {
					return failed
				}
				err = i.issueSurely(x, request)
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

// maxExchanges bounds how many key requests of a message are tried: one that fails may have
// cost several operations of a device.
const maxExchanges = 8

// issueSurely is issue, repeated if the device lost the new keys before they were sealed. They
// were never sent, so new ones can replace them.
func (i *issuance) issueSurely(x Responder, request schemeData) error {
	err := i.issue(x, request)
	if errors.Is(err, keystore.ErrLost) {
		err = i.issue(x, request)
	}
	return err
}

// issue answers one key request with a new or a renewed master token. The keys
// are wrapped for the peer first and sealed into the token last.
func (i *issuance) issue(x Responder, request schemeData) error {
	s, in := i.server, i.in
	from := Requester{Identity: in.sender.Identity, Token: in.token, Custody: s.Custody, MessageID: in.messageID, Time: s.Issuer.now()}
	keys, keydata, err := x.Respond(i.ctx, from, request.data)
	if err != nil {
		return fail(codeOf(err), "key exchange", err)
	}
	if s.Custody == CustodyShared && keys.raw.Load() == nil {
		keys.Release()
		return fail(ErrInternalException, "key exchange", errors.New("the exchange kept no bytes for a shared token"))
	}
	at, _, err := issueTimes(i.ctx, s, in.sender.Identity, "")
	if err == nil {
		err = expect(i.ctx, s, at.Add(s.Issuer.lifetime()+time.Minute))
	}
	if err != nil {
		keys.Release()
		return err
	}
	var sequence int64
	if in.session != nil {
		sequence, err = statesOf(s).Renew(i.ctx, in.session.Identity, in.token.SerialNumber, in.token.SequenceNumber)
		if err != nil {
			keys.Release()
			return fail(codeOf(err), "renew master token", err)
		}
	}
	since := s.sessions.since.Load()
	session, err := s.Issuer.issueAt(at, in.sender.Identity, in.session, sequence, keys)
	if err != nil {
		keys.Release()
		return err
	}
	session.opened = since
	i.session = session
	i.keyResponse = &keyResponse{token: session.Token, schemeData: schemeData{scheme: x.Scheme(), data: keydata}}
	return nil
}

// exchange is the scheme by which the answer delivers keys, or empty.
func (i *issuance) exchange() string {
	if i.keyResponse == nil {
		return ""
	}
	return i.keyResponse.scheme
}

// issuedVersion is that of the issuer keys of the token that the answer delivers, or 0.
func (i *issuance) issuedVersion() uint32 {
	if i.keyResponse == nil || i.session == nil {
		return 0
	}
	return i.session.issuerVersion
}

// masterToken is the token that the issued tokens are bound to, or nil.
func (i *issuance) masterToken() *MasterToken {
	if i.session != nil {
		return i.session.Token
	}
	if i.delivered != nil {
		return i.delivered.Token
	}
	return i.in.token
}

// userToken returns the user ID token for the answer: that of the request, renewed if
// due, or a new one.
func (i *issuance) userToken() (*UserIDToken, error) {
	in, mt := i.in, i.masterToken()
	old, now := in.userIDToken, i.server.Issuer.now()
	switch {
	case old != nil && (in.renewable && old.renewable(now) || old.expired(now) || old.boundTo(mt) != nil):
		return i.issueUser(in.user, mt, old)
	case old == nil && in.userAuth != nil && in.renewable && mt != nil:
		return i.issueUser(in.user, mt, nil)
	}
	return old, nil
}

// userOf returns a user ID token for a user named by the application.
func (i *issuance) userOf(name string) (*UserIDToken, error) {
	mt := i.masterToken()
	if mt == nil {
		return nil, fail(ErrResponseRequiresMasterToken, "issue user id token", nil)
	}
	return i.issueUser(name, mt, nil)
}

func (i *issuance) issueUser(name string, mt *MasterToken, old *UserIDToken) (*UserIDToken, error) {
	_, at, err := issueTimes(i.ctx, i.server, i.in.sender.Identity, name)
	if err != nil {
		return nil, err
	}
	return i.server.Issuer.issueUserAt(at, name, mt, old)
}

// compression is the algorithm for the answer and the tokens in it, or empty.
func (i *issuance) compression() string {
	if i.uncompressed {
		return ""
	}
	return i.capabilities.compression()
}

// addServiceTokens returns the service tokens of the request, with the application's
// changes.
func (i *issuance) addServiceTokens(h *header) error {
	h.serviceTokens = slices.Clone(i.in.serviceTokens)
	for _, c := range i.changes {
		t, err := c.token(i.server.ServiceTokens, i.server.Issuer.Rand, i.masterToken(), h.userIDToken, i.compression())
		if err != nil {
			return err
		}
		h.serviceTokens = putServiceToken(h.serviceTokens, t)
	}
	if len(i.changes) == 0 {
		return nil
	}
	if err := i.server.Limits.carries(h.serviceTokens); err != nil {
		return fail(ErrMSLEncodeError, "service tokens", err)
	}
	return nil
}

// withdraw forgets a session that was never announced to a peer.
func (i *issuance) withdraw() {
	if i.session != nil {
		i.server.sessions.withdraw(i.session)
	}
}

// release releases the keys of a session that was issued.
func (i *issuance) release() {
	if i.session != nil {
		i.session.Release()
		i.session = nil
	}
}
