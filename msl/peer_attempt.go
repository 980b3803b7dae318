package msl

import (
	"context"
	"errors"
)

// A peerAttempt is a request or an answer in progress to a peer for which this side also
// issues tokens.
type peerAttempt struct {
	*attempt
	conn   *Conn
	reply  *incoming // the message that the next one answers, or nil
	answer *issuance // the tokens that reply asks for
}

// attempt makes an attempt whose next message answers reply, if that is not nil.
func (c *Conn) attempt(req *Request, reply *incoming) *peerAttempt {
	a := &peerAttempt{attempt: c.Client.attempt(req), conn: c, reply: reply}
	a.watch = c.watch()
	if reply != nil {
		a.messageID = next(reply.messageID)
	}
	a.network = a
	return a
}

// turnTo sets the message that the next one answers, and releases the previous one.
func (a *peerAttempt) turnTo(in *incoming) {
	if a.reply != nil {
		a.reply.release()
	}
	a.reply = in
}

// takes reports whether the peer accepts the next message under the token held: always
// for a request; for an answer, if the peer knows that token.
func (a *peerAttempt) takes(held *holding) bool {
	return a.reply == nil || a.conn.takes(a.reply, held)
}

// answers reports whether the next message is an answer. The peer may wait for it
// before it answers a request of this side.
func (a *peerAttempt) answers() bool { return a.reply != nil }

// release releases the keys of the tokens that were issued.
func (a *peerAttempt) release() {
	if a.answer != nil {
		a.answer.release()
	}
	a.answer = nil
}

// remember keeps the session of the master token that is about to be sent.
func (a *peerAttempt) remember() {
	if a.answer != nil && a.answer.session != nil {
		a.conn.Server.sessions.offer(a.answer.session)
	}
}

// show adds to the header of an answer the tokens that this side issues for the peer.
func (a *peerAttempt) show(ctx context.Context, h *header) error {
	if a.reply == nil {
		h.peer.master, h.peer.user = a.conn.theirs.master, a.conn.theirs.user
		return nil
	}
	if a.answer == nil || a.answer.in != a.reply {
		if err := a.prepareAnswer(ctx); err != nil {
			a.release()
			return err
		}
	}
	h.capabilities = a.reply.capabilities.intersect(a.client.Capabilities)
	a.answer.capabilities = h.capabilities
	issued, err := a.answer.header()
	if err != nil {
		return err
	}
	h.keyResponse, h.recipient = issued.keyResponse, issued.recipient
	h.peer = peerTokens{master: a.reply.token, user: issued.userIDToken, services: issued.serviceTokens}
	a.conn.theirs = peerTokens{master: a.answer.masterToken(), user: issued.userIDToken}
	return nil
}

// prepareAnswer makes the tokens that the message asks for, once it is admitted.
func (a *peerAttempt) prepareAnswer(ctx context.Context) error {
	leave, err := a.reply.admittedToKeys(ctx)
	if err != nil {
		return err
	}
	defer leave()
	a.answer = &issuance{ctx: ctx, server: a.conn.Server, in: a.reply}
	return a.answer.prepare()
}

// lacks reports whether a channel would be the first message: the peer could not answer
// it before its own handshake, which would have to wait for the end of the channel.
func (a *peerAttempt) lacks() bool {
	mt := a.conn.theirs.master
	return a.reply == nil && (mt == nil || mt.expired(a.conn.Server.Issuer.now()))
}

// turn sends one message and, if an answer is due, reads it.
func (a *peerAttempt) turn(ctx context.Context, wait bool) (*outgoing, *incoming, error) {
	if err := a.reserve(ctx); err != nil {
		return nil, nobody(), err
	}
	defer a.ids.settle(a.client)
	if err := a.takeTokens(ctx); err != nil {
		return nil, nobody(), err
	}
	a.plan = plan{}
	var got *MasterToken
	defer func() { a.finish(got) }()
	out, err := a.build(ctx)
	if err != nil {
		return nil, nobody(), err
	}
	wait = wait && (a.purpose != oneWay || out.handshake)
	a.remember()
	if err := a.conn.write(ctx, out); err != nil || !wait {
		return out, nobody(), a.sent(err, answered) // on one connection, later messages cannot overtake it
	}
	in, err := a.conn.next(ctx, a)
	if a.sent(err, seen) == nil {
		a.messageID = next(in.messageID)
		got = in.peer.master
		if in.keyResponse != nil {
			got = in.keyResponse.token
		}
	}
	return out, in, err
}

// checkAnswer checks the answer to a message, and keeps the tokens that it brings.
func (a *peerAttempt) checkAnswer(ctx context.Context, in *incoming) (err error) {
	if err = in.inflateTokens(ctx); err != nil {
		return err
	}
	var outcome Outcome
	if in.keyResponse != nil && !in.refused() {
		if outcome, err = a.accept(ctx, in); err != nil {
			return err
		}
	}
	if err = a.conn.Server.judge(ctx, in); err == nil {
		err = a.checkPeer(in)
	}
	if err == nil {
		err = a.conn.Server.admit(ctx, in)
	}
	if err != nil {
		outcome.Keys.Release()
		return err
	}
	a.client.believeClock(in)
	a.giver = a.conn.giver(in)
	return a.keep(ctx, in.keyResponse, outcome, in.peer.user, in.peer.services)
}

func (a *peerAttempt) checkPeer(in *incoming) error {
	if in.messageID != next(a.messageID) {
		return fail(ErrUnexpectedResponseMessageID, "answer", nil)
	}
	if a.req.Recipient != "" && !sameName(in.sender.Identity, a.req.Recipient) {
		return fail(ErrMessageSenderMismatch, "answer", nil)
	}
	return nil
}

// realAnswer returns the answer with the data: in, or the one that the peer gives after
// handshakes, once it has the tokens that it needs. count is the number of messages.
func (a *peerAttempt) realAnswer(ctx context.Context, in *incoming, count int) (*incoming, int, error) {
	for ; ; count += 2 {
		if !a.req.Interactive { // the first chunk of a channel may be long in coming
			if err := in.inferHandshake(); err != nil {
				return in, count, err
			}
		}
		switch {
		case !in.handshake:
			return in, count, nil
		case a.req.Interactive:
			return in, count, errors.New("msl: the peer needs keys before it can answer, and they cannot be sent while a channel is open; send an ordinary request first")
		case count+2 > maxMessages:
			return in, count, errUnanswered
		}
		following, err := a.serveKeys(ctx, in)
		in.release()
		if in = following; err != nil {
			return in, count + 2, err
		}
	}
}

// serveKeys gives the peer the tokens that its answer asks for, and reads the message
// after an answer that was a handshake.
func (a *peerAttempt) serveKeys(ctx context.Context, in *incoming) (*incoming, error) {
	k := a.conn.attempt(&Request{Recipient: a.req.Recipient}, in)
	k.purpose = quietHeader
	_, following, err := k.turn(ctx, in.handshake)
	return following, err
}

// peerResponse passes the answer to the application.
func (a *peerAttempt) peerResponse(ctx context.Context, in *incoming, count int, end func()) *Response {
	a.conn.pending = in.body
	r := &Response{
		Identity: CanonicalName(in.sender.Identity), ServiceTokens: in.peer.services, MessageID: in.messageID, Messages: count,
		Body: &responseBody{data: in.body, answers: true, stream: &drainer{ctx, a, in, end}, release: in.release},
	}
	if in.keyResponse != nil {
		r.KeyExchange = in.keyResponse.scheme
	}
	return r
}

// persist makes the next message of an answer. It retries for a while, since the
// application has already acted on the request.
func (a *peerAttempt) persist(ctx context.Context) (out *outgoing, err error) {
	err = persist(ctx, func() error {
		if err = a.takeTokens(ctx); err != nil {
			return err
		}
		if out, err = a.build(ctx); err != nil {
			a.letGo(nil)
		}
		return err
	})
	if err != nil {
		a.release()
	}
	return out, err
}

// shakeHands sends a handshake and takes the keys from its answer. The next message
// answers that answer.
func (a *peerAttempt) shakeHands(ctx context.Context, out *outgoing, first *incoming) error {
	if err := a.conn.skip(); err != nil {
		out.abandon()
		a.letGo(nil) // the issued tokens are sent later, with the answer
		return err
	}
	var got *MasterToken
	end := a.finish
	defer func() { end(got) }()
	a.remember()
	if err := a.conn.write(ctx, out); err != nil {
		return err
	}
	in, err := a.conn.next(ctx, a)
	if isAnswer(err, a.verdict) {
		end = a.letGo // the issued tokens are sent again
	}
	if err != nil {
		in.release()
		return err
	}
	if in.keyResponse == nil {
		in.release()
		return fail(ErrKeyXResponseRequestMismatch, "answer to a handshake without keys", nil)
	}
	got = in.keyResponse.token
	a.messageID, a.demands = next(in.messageID), demands{}
	if a.reply == first {
		a.reply = nil // the caller releases it
	}
	a.turnTo(in)
	return nil
}
