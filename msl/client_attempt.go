package msl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// An attempt is a request on its way, through as many messages as it takes.
type attempt struct {
	client  *Client
	req     *Request
	network requestNetwork

	messageID int64        // of the next message
	bare      bool         // use no tokens
	renew     bool         // ask for new tokens
	handshake bool         // get them before the data is sent
	reason    ResponseCode // why user authentication data is asked for again
	proven    bool         // the last error answer was authenticated
	offered   bool         // the last message had key requests
	oneWay    bool         // nobody waits for an answer to the data
	pushed    bool         // what comes answers nothing
	lone      bool         // the message consists of a header only
	quiet     bool         // and asks for nothing
	refused   *UserIDToken // that the peer did not take; it may be held for others
	ids       numbering

	// of the message that was sent last
	tokens  *tokens
	user    *UserIDToken
	us      string   // our identity in it
	renewal *renewal // held
	offers  offers
}

// exchange sends one message and reads the answer. It returns no response where
// the message was a handshake that went well.
func (a *attempt) exchange(ctx context.Context) (response *Response, err error) {
	if err := a.reserve(ctx); err != nil {
		return nil, err
	}
	defer a.ids.settle(a.client)
	if err := a.takeTokens(ctx); err != nil {
		return nil, err
	}
	a.offered = false
	var got *MasterToken
	defer func() { a.finish(got) }()
	out, err := a.build(ctx)
	if err != nil {
		return nil, err
	}
	defer out.abandon()
	if a.oneWay && !out.handshake {
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
	in, err := a.receive(ctx, wire.NewDecoder(stream, a.client.Limits.forClient().wire()))
	if err = a.sent(err, seen); err != nil {
		if a.req.Interactive { // its body would not end by itself
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
		a.bare, a.renew, a.handshake = false, false, false
		in.release()
		return nil, stream.Close()
	}
	return a.response(in, exchanged{stream, in.body, cancel}), nil
}

// An exchanged stream ends the sending of the request when it is closed.
type exchanged struct {
	io.Closer
	body   *payloadReader
	cancel context.CancelFunc
}

func (e exchanged) Close() error {
	defer e.cancel()
	var err error
	if _, lasts := e.Closer.(*streamAnswer); lasts { // the peer may not read on before its answer is read
		_, err = io.Copy(io.Discard, e.body)
	}
	return errors.Join(err, e.Closer.Close())
}

// post sends a message whose answer is not read. It waits until the transport has taken
// all of it: an answer may begin earlier.
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

// sent notes what became of the message that was sent, and returns the error.
func (a *attempt) sent(err error, well fate) error { return a.ids.sent(err, a.proven, well) }

// takeTokens picks the tokens for the next message, and takes the renewal lock or waits
// for its holder, as the message demands.
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

// pickTokens picks the tokens for the next message, and says whether it needs new
// ones. held is what the client holds if the message uses that, else nil.
func (a *attempt) pickTokens() (held *tokens, n need, err error) {
	t, now, known, err := a.client.snapshot()
	if err != nil {
		return nil, n, err
	}
	held = t
	bare := a.bare || a.ids.spent(t.master()) || !a.network.takes(t.master())
	if uit := t.user(a.req.User); uit != nil && uit == a.refused {
		t = t.withUser(a.req.User, nil)
	}
	if bare {
		t.release()
		t, held = &tokens{services: t.services}, nil
		t.services = t.servicesFor(nil)
	}
	a.tokens, a.user = t, t.user(a.req.User)
	if a.quiet {
		return held, need{}, nil
	}
	n = renewalNeed(a.req, a.client.Local, t, a.renew || a.givesFirst(), known, now)
	keyless := t.master() == nil && len(a.client.KeyExchanges) == 0 // no answer could bring a token
	n.may = n.may && !a.oneWay && !keyless
	return held, n, nil
}

// lockRenewal takes the renewal lock for the message, or waits for its holder. The
// message is ready unless its tokens have to be picked again.
func (a *attempt) lockRenewal(ctx context.Context, held *tokens, n need) (ready bool, err error) {
	c := a.client
	r, ok := c.renewal.acquire()
	if !ok && n.must && a.network.answers() {
		// A request of ours has the lock, and the peer may not answer it before
		// it has this answer.
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
	if ok { // the tokens changed before we had the lock
		c.renewal.release(r, nil)
		return false, nil
	}
	if err := r.wait(ctx); err != nil {
		return false, fmt.Errorf("msl: wait for the renewal of another message: %w", err)
	}
	if mt := a.tokens.master(); r.token != nil && (mt == nil || !bytes.Equal(r.token.Bytes(), mt.Bytes())) {
		a.bare, a.renew, a.handshake = false, false, false // the new token may do
	}
	return false, nil
}

func (t *tokens) release() {
	if t.session != nil {
		t.session.keys.Release()
	}
}

// finish ends the use of what the last message held and issued.
func (a *attempt) finish(got *MasterToken) {
	a.network.release()
	a.letGo(got)
}

// letGo ends the use of what the last message held.
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
	local, err := localIdentification(ctx, c.Local)
	if err != nil {
		return nil, err
	}
	a.us = local.local.Identity
	out := &outgoing{us: local, body: a.req.Body, flush: a.req.Interactive, lone: a.lone}
	h := header{
		messageID: a.messageID, nonReplayableID: absent, renewable: a.renewal != nil,
		capabilities: c.Capabilities, userIDToken: a.user, serviceTokens: a.tokens.servicesFor(a.user),
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
	if out.head, err = out.us.encodeMessage("headerdata", h.encode(c.localTime())); err != nil {
		local.release()
		return nil, err
	}
	if out.keys != nil {
		out.keys.Acquire() // the tokens of the attempt hold them, too
	}
	out.payload = payloadWriter{protector: out.us.protector, messageID: h.messageID, compression: h.capabilities.compression()}
	return out, nil
}

// prepare decides what the message carries.
func (a *attempt) prepare(ctx context.Context, h *header, out *outgoing, identity string) error {
	if a.lone {
		if h.renewable && a.keysDue() {
			return a.offer(ctx, h, identity)
		}
		return nil
	}
	heldBack, err := a.userAuth(ctx, h)
	if err != nil {
		return err
	}
	keysDue := h.renewable && a.keysDue()
	// Keys come before the data of a channel, which may say nothing for long.
	early := keysDue && (a.handshake || a.oneWay || a.req.Interactive)
	out.handshake = heldBack || early || !a.req.fits(a.protection())
	// Peers take a message with key requests and no data for a handshake of an old
	// stack, so it must be one.
	if keysDue && !a.req.Interactive {
		empty, err := a.req.empty()
		if err != nil {
			return err
		}
		out.handshake = out.handshake || empty
	}
	if out.handshake {
		h.handshake, h.renewable = true, true
	} else if a.req.NonReplayable {
		c, serial := a.client, a.tokens.master().SerialNumber
		if err = c.numbers.draw(ctx, a.ids.number, serial, c.State.NextID); err != nil {
			return err
		}
		h.nonReplayableID = a.ids.number.id
	}
	if !out.handshake {
		if err := a.changeTokens(ctx, h); err != nil {
			return err
		}
	}
	if keysDue {
		return a.offer(ctx, h, identity)
	}
	return nil
}

// keysDue reports whether a renewable message should bring key requests.
func (a *attempt) keysDue() bool {
	mt := a.tokens.master()
	now, known := a.client.serverTime()
	return mt == nil || !known || mt.renewable(now) || a.givesFirst()
}

// givesFirst reports whether a handshake has to go before a channel for the sake of the peer.
func (a *attempt) givesFirst() bool { return a.req.Interactive && a.network.lacks() }

// protection is what protects the header of the message.
func (a *attempt) protection() protection { return protectionOf(a.client.Local, a.tokens.master()) }

// userAuth adds the authentication data of a local user without a token. If the header
// does not protect it, the data must wait for a message that does.
func (a *attempt) userAuth(ctx context.Context, h *header) (heldBack bool, err error) {
	if a.req.User == "" || a.user != nil {
		return false, nil
	}
	if p := a.protection(); !p.encrypted || !p.authenticated {
		return true, nil
	}
	if a.client.UserAuth == nil {
		return false, fmt.Errorf("msl: no user authentication configured for user %q", a.req.User)
	}
	data, err := a.client.UserAuth(ctx, a.req.User, a.reason)
	if err != nil {
		return false, err
	}
	if data == nil {
		return false, fmt.Errorf("msl: no user authentication data for user %q", a.req.User)
	}
	h.userAuth = &schemeData{scheme: data.Scheme, data: data.AuthData}
	return false, nil
}

// offer adds key requests, one of each key exchange that our keys can finish.
func (a *attempt) offer(ctx context.Context, h *header, identity string) error {
	a.offered = true
	c := a.client
	now, _ := c.serverTime()
	from := Requester{Identity: identity, Token: a.tokens.master(), Custody: c.Custody, MessageID: h.messageID, Time: now}
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
