package msl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// An attempt is a request in progress, through as many messages as it takes.
type attempt struct {
	client  *Client
	req     *Request
	limits  Limits // the client's, with the defaults
	network requestNetwork
	purpose purpose
	watch   watcher

	as        persona
	lease     lease
	messageID int64         // of the next message
	demands   demands       // on the next message
	proof     *UserAuthData // of the user, until sent
	reason    ResponseCode  // why user authentication data is asked for again
	refused   *UserIDToken  // not accepted by the peer; other messages may still use it
	verdict   *PeerError    // the last error answer, or nil
	proven    *PeerError    // that answer, if it was authenticated
	remade    bool          // a message was made since then
	giver     giver         // of the tokens, if the answer is from a peer
	ids       numbering

	// of the last message sent
	plan    plan
	tokens  *tokens
	user    *UserIDToken
	us      string   // this side's identity in it
	renewal *renewal // held
	offers  offers
	ahead   time.Duration // by how much the server's clock was, as far as known
}

// exchange sends one message and reads the answer. It returns no response if the message
// was a successful handshake.
func (a *attempt) exchange(ctx context.Context) (response *Response, err error) {
	if err := a.reserve(ctx); err != nil {
		return nil, err
	}
	defer a.ids.settle(a.client)
	if err := a.takeTokens(ctx); err != nil {
		return nil, err
	}
	a.plan = plan{}
	var got *MasterToken
	defer func() { a.finish(got) }()
	out, err := a.build(ctx)
	if err != nil {
		return nil, err
	}
	defer out.abandon()
	if a.purpose == oneWay && !out.handshake {
		return &Response{}, a.sent(a.post(ctx, out), answered)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		if response == nil {
			cancel()
		}
	}()
	stream, err := a.client.Transport.RoundTrip(ctx, func(w io.Writer) error { return out.write(ctx, w) })
	if err != nil {
		return nil, a.sent(err, gone)
	}
	in, err := a.receive(ctx, wire.NewDecoder(stream, a.limits.wire()))
	if !out.handshake {
		err = unread(err)
	}
	if err = a.sent(err, seen); err != nil {
		if a.req.Interactive { // the request's body would not end on its own
			cancel()
		}
		in.release()
		stream.Close()
		return nil, err
	}
	a.messageID = next(in.messageID)
	got = a.tokens.master()
	if in.keyResponse != nil {
		got = in.keyResponse.token
	}
	if out.handshake {
		a.demands = demands{}
		in.release()
		return nil, stream.Close()
	}
	return a.response(in, exchanged{stream, in.body, cancel}, in.close), nil
}

// An exchanged stream stops the sending of the request when it is closed.
type exchanged struct {
	io.Closer
	body   *payloadReader
	cancel context.CancelFunc
}

func (e exchanged) Close() error {
	defer e.cancel()
	var err error
	if _, lasts := e.Closer.(*streamAnswer); lasts { // the peer may not read on until its answer is read
		err = e.body.discard()
	}
	return errors.Join(err, e.Closer.Close())
}

// post sends a message whose answer is not read. It waits until the transport has taken
// all of it, since an answer may begin earlier.
func (a *attempt) post(ctx context.Context, out *outgoing) error {
	written := make(chan error, 1)
	stream, err := a.client.Transport.RoundTrip(ctx, func(w io.Writer) error {
		err := out.write(ctx, w)
		written <- err
		return err
	})
	if err != nil {
		return err
	}
	select {
	case err = <-written:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return errors.Join(err, stream.Close())
}

// reserve gets a place for the id of a non-replayable message.
func (a *attempt) reserve(ctx context.Context) error {
	if !a.req.NonReplayable {
		return nil
	}
	return a.ids.reserve(ctx, a.client)
}

// sent records the outcome of the message that was sent, and returns err.
func (a *attempt) sent(err error, well fate) error { return a.ids.sent(err, a.proven, well) }

// takeTokens picks the tokens for the next message, and takes the renewal lock or waits
// for its holder, depending on the message.
func (a *attempt) takeTokens(ctx context.Context) error {
	for {
		held, n, err := a.pickTokens()
		if err != nil || !n.must && !n.may {
			return err
		}
		if ready, err := a.lockRenewal(ctx, held, n); ready || err != nil {
			return err
		}
	}
}

// pickTokens picks the tokens for the next message, and reports whether it needs new
// ones. held is what the client holds if the message uses it, else nil.
func (a *attempt) pickTokens() (held *tokens, n need, err error) {
	t, now, known, err := a.client.snapshot()
	if err == nil && !a.lease.wanted() {
		t.release()
		err = ErrForgotten
	}
	if err != nil {
		return nil, n, err
	}
	held = t
	bare := a.demands.bare || a.ids.spent(t.master()) || !a.network.takes(t.session)
	if uit := t.user(a.req.User); uit != nil && uit == a.refused {
		t = t.withUser(a.req.User, nil)
	}
	if bare {
		t.release()
		t, held = &tokens{services: t.services}, nil
		t.services = t.servicesFor(nil)
	}
	a.tokens, a.user = t, t.user(a.req.User)
	if a.purpose == quietHeader {
		return held, need{}, nil
	}
	n = renewalNeed(a.req, a.as.entity, t, a.demands.renew || a.req.givesFirst(a.network), known, now)
	keyless := t.master() == nil && len(a.client.KeyExchanges) == 0 // no answer could bring a token
	n.may = n.may && a.purpose != oneWay && !keyless
	return held, n, nil
}

// lockRenewal takes the renewal lock for the message, or waits for its holder. The
// message is then ready unless its tokens have to be picked again.
func (a *attempt) lockRenewal(ctx context.Context, held *tokens, n need) (ready bool, err error) {
	c := a.client
	r, ok := c.renewal.acquire()
	if !ok && n.must && a.network.answers() {
		// A request of this side holds the lock, and the peer may not answer it before it
		// has this answer.
		r, ok = newRenewal(), true
	}
	if ok && (held == nil || c.holds(held)) {
		a.renewal = r
		return true, nil
	}
	if !ok && !n.must {
		return true, nil
	}
	a.tokens.release()
	if ok { // the tokens changed before the lock was taken
		c.renewal.release(r, nil)
		return false, nil
	}
	if err := r.wait(ctx); err != nil {
		return false, fmt.Errorf("msl: wait for the renewal of another message: %w", err)
	}
	if mt := a.tokens.master(); r.token != nil && (mt == nil || !bytes.Equal(r.token.Bytes(), mt.Bytes())) {
		a.demands = demands{} // the new token may be enough
	}
	return false, nil
}

func (t *tokens) release() {
	if t.session != nil {
		t.session.keys.Release()
	}
}

// finish releases the tokens used and issued by the last message.
func (a *attempt) finish(got *MasterToken) {
	a.network.release()
	a.letGo(got)
}

// letGo releases the lock, the offers and the tokens of the last message.
func (a *attempt) letGo(got *MasterToken) {
	a.offers.close()
	if a.renewal != nil {
		a.client.renewal.release(a.renewal, got)
		a.renewal = nil
	}
	a.tokens.release()
}

// build makes the header, step by step in the protocol's order.
func (a *attempt) build(ctx context.Context) (*outgoing, error) {
	c := a.client
	local, err := localIdentification(ctx, a.as.entity, c.Rand)
	if err != nil {
		return nil, err
	}
	a.us = local.local.Identity
	out := &outgoing{us: local, body: a.req.Body, flush: a.req.Interactive}
	h := header{
		messageID: a.messageID, nonReplayableID: absent, renewable: a.renewal != nil,
		capabilities: a.req.capabilities(c.Capabilities), userIDToken: a.user, serviceTokens: a.tokens.servicesFor(a.user),
	}
	if s := a.tokens.session; s != nil {
		key := sessionKey(local.local.Identity, s.token, s.keys)
		key.Rand = c.Rand
		out.us.token, out.us.protector, h.sender = s.token, key, local.local.Identity
		out.keys = s.keys
	}
	err = a.prepare(ctx, &h, out, local.local.Identity)
	if err == nil {
		err = a.network.show(ctx, &h)
	}
	if err != nil {
		local.release()
		return nil, err
	}
	out.waits = len(h.keyRequests) > 0 || h.renewable && out.us.token != nil && h.userAuth != nil
	now := c.localTime()
	if out.head, err = out.us.seal(&h, now); err != nil {
		local.release()
		return nil, err
	}
	if out.keys != nil {
		out.keys.Acquire() // the tokens of the attempt hold them as well
	}
	out.tell = a.watch.sends(&h, now, out.us, a.as.entity, a.us)
	out.payload = payloadWriter{protector: out.us.protector, messageID: h.messageID, compression: a.req.compression(h.capabilities)}
	a.remade = true
	return out, nil
}

// prepare decides what the message carries, and adds it to the header.
func (a *attempt) prepare(ctx context.Context, h *header, out *outgoing, identity string) (err error) {
	protection := protectionOf(a.as.entity, a.tokens.master())
	if err = a.userAuth(ctx, h, protection); err != nil {
		return err
	}
	if a.plan, err = a.decide(protection); err != nil {
		return err
	}
	switch a.plan.content {
	case noPayload:
		out.lone = true
	case noData:
		out.handshake, h.handshake, h.renewable = true, true, true
	case theData:
		err = a.addToData(ctx, h)
	}
	if err == nil && a.plan.keys {
		err = a.offer(ctx, h, identity)
	}
	return err
}

// userAuth adds the authentication data of a local user without a token. If the header
// does not protect it, the data waits for a message that does. It is asked for in any
// case: without it, nothing may be sent.
func (a *attempt) userAuth(ctx context.Context, h *header, p protection) (err error) {
	if !a.req.provesUser(a.user) || a.purpose == loneHeader || a.purpose == quietHeader {
		return nil
	}
	if a.proof == nil {
		if a.proof, err = a.client.askUser(ctx, a.req.User, a.reason); err != nil {
			return err
		}
	}
	if p.hidesUser() {
		h.userAuth = &schemeData{scheme: a.proof.Scheme, data: a.proof.AuthData}
		a.proof = nil
	}
	return nil
}

// askUser asks the application for a proof of a user.
func (c *Client) askUser(ctx context.Context, user string, reason ResponseCode) (*UserAuthData, error) {
	if c.UserAuth == nil {
		return nil, fmt.Errorf("msl: no user authentication configured for user %q", user)
	}
	proof, err := c.UserAuth(ctx, user, reason)
	if err == nil && proof == nil {
		err = fmt.Errorf("msl: no user authentication data for user %q", user)
	}
	return proof, err
}

// addToData adds to a header what is sent only with data: a non-replayable id, and the
// application's service tokens.
func (a *attempt) addToData(ctx context.Context, h *header) error {
	if a.req.NonReplayable {
		c, serial := a.client, a.tokens.master().SerialNumber
		if err := c.numbers.draw(ctx, a.ids.number, serial, c.State.NextID); err != nil {
			return err
		}
		h.nonReplayableID = a.ids.number.id
	}
	return a.changeTokens(ctx, h)
}

// offer adds key requests, one of each key exchange that this side's keys can complete.
func (a *attempt) offer(ctx context.Context, h *header, identity string) error {
	c := a.client
	a.ahead = aheadOf(c)
	from := Requester{Identity: identity, Token: a.tokens.master(), Custody: c.Custody, MessageID: h.messageID, Time: c.localTime().Add(a.ahead)}
	unable, err := a.offers.add(ctx, permitted(c.Custody, c.KeyExchanges), from)
	if err != nil {
		return fail(codeOf(err), "offer key exchange", err)
	}
	h.keyRequests = a.offers.requests()
	if unable != nil && len(h.keyRequests) == 0 && (h.handshake || from.Token == nil) {
		return fail(codeOf(unable), "offer key exchange", unable)
	}
	if h.handshake && len(h.keyRequests) == 0 {
		return fmt.Errorf("msl: a key exchange is needed, but custody %v allows none of the %d configured", c.Custody, len(c.KeyExchanges))
	}
	return nil
}
