package msl

import (
	"context"
	"errors"
)

// A peering is the part of an attempt that a peer-to-peer network adds.
type peering struct {
	conn   *Conn
	reply  *incoming       // what the next message answers, or nil
	answer *ResponseWriter // issues what reply asks for
	lone   bool            // the message is a header alone
	quiet  bool            // and asks for nothing
}

// answering turns to the message that the next one answers.
func (p *peering) answering(in *incoming) {
	if p.reply != nil {
		p.reply.release()
	}
	p.reply = in
}

// release lets go of what was issued.
func (p *peering) release() {
	if p.answer != nil && p.answer.issued != nil {
		p.answer.issued.Release()
		p.answer.issued = nil
	}
	p.answer = nil
}

// remember keeps the session of what was issued, which is about to be sent.
func (p *peering) remember() {
	if p.answer != nil && p.answer.issued != nil {
		p.conn.Server.offer(p.answer.issued)
	}
}

// show adds what we issue for the peer to the header of an answer.
func (a *attempt) show(ctx context.Context, h *header) error {
	if a.conn == nil {
		return nil
	}
	if a.reply == nil {
		h.peer.master, h.peer.user = a.conn.theirs.master, a.conn.theirs.user
		return a.checkChannel(h)
	}
	if a.answer == nil || a.answer.in != a.reply {
		a.answer = &ResponseWriter{ctx: ctx, server: a.conn.Server, in: a.reply, conn: a.conn}
		if err := a.answer.prepare(); err != nil {
			a.peering.release()
			return err
		}
	}
	h.capabilities = a.reply.capabilities.intersect(a.client.Capabilities)
	a.answer.capabilities = h.capabilities
	issued, err := a.answer.wished()
	if err != nil {
		return err
	}
	h.keyResponse, h.recipient = issued.keyResponse, issued.recipient
	h.peer = peerTokens{master: a.reply.token, user: issued.userIDToken, services: issued.serviceTokens}
	a.conn.theirs = peerTokens{master: a.answer.masterToken(), user: issued.userIDToken}
	return nil
}

// checkChannel refuses a channel that the peer could not answer under a token of
// ours, since its own handshake would have to wait for the end of the channel.
func (a *attempt) checkChannel(h *header) error {
	mt := h.peer.master
	if !a.req.Interactive || h.handshake || mt != nil && !mt.expired(a.conn.Server.Issuer.now()) {
		return nil
	}
	return errors.New("msl: the peer holds no token of ours that a channel needs; send an ordinary request first")
}

// turn sends one message and, if an answer is due, reads it.
func (a *attempt) turn(ctx context.Context, wait bool) (*outgoing, *incoming, error) {
	nobody := &incoming{release: func() {}}
	if err := a.reserve(ctx); err != nil {
		return nil, nobody, err
	}
	defer a.settle()
	if err := a.takeTokens(ctx); err != nil {
		return nil, nobody, err
	}
	a.offered = false
	var got *MasterToken
	defer func() { a.finish(got) }()
	out, err := a.build(ctx)
	if err != nil {
		return nil, nobody, err
	}
	wait = wait && (!a.oneWay || out.handshake)
	a.remember()
	if err := a.conn.write(ctx, out); err != nil || !wait {
		return out, nobody, a.sent(err, answered) // what comes after it on the connection cannot overtake it
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

// startPeer sends the header of an answer in a peer-to-peer network. Where the
// data needs protection that we do not have yet, a handshake of our own goes
// first.
func (w *ResponseWriter) startPeer() (err error) {
	a := &attempt{
		client: w.conn.Client, messageID: next(w.in.messageID),
		req:     &Request{Encrypted: w.Encrypted, Authenticated: w.Authenticated},
		peering: peering{conn: w.conn, reply: w.in, answer: w},
	}
	if len(w.payload.buffer) > 0 {
		a.req.Body = BytesBody(w.payload.buffer[:1]) // there is data; how much does not matter here
	} else { // keys without data would need a handshake, which waits for the rest of the request
		a.oneWay = w.in.body != nil && !w.in.body.done.Load()
	}
	defer func() {
		if err != nil && a.reply != w.in {
			err = withID(err, a.reply.messageID) // that is what an error answers by now
			a.answering(nil)
		}
	}()
	for count := 3; count+2 <= maxMessages; count += 2 {
		out, err := a.persist(w.ctx)
		if err != nil {
			return err
		}
		if !out.handshake {
			return w.sendPeer(a, out)
		}
		if err := a.shakeHands(w.ctx, out, w.in); err != nil {
			return err
		}
	}
	return errors.New("msl: the peer gave no keys within 12 messages")
}

// sendPeer sends the header of an answer.
func (w *ResponseWriter) sendPeer(a *attempt, out *outgoing) error {
	w.talk = &peerAnswer{attempt: a, sent: out}
	buffer, to := w.payload.buffer, w.payload.out
	w.payload = out.payload
	w.payload.buffer, w.payload.ctx, w.payload.out = buffer, w.ctx, to
	a.remember()
	if err := w.conn.written(); err != nil {
		return err
	}
	_, err := to.Write(out.head)
	return err
}

// persist makes the next message of an answer, which the application has already
// acted for.
func (a *attempt) persist(ctx context.Context) (out *outgoing, err error) {
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
		a.peering.release()
	}
	return out, err
}

// shakeHands sends a handshake and takes the keys of the answer, which the next
// message answers.
func (a *attempt) shakeHands(ctx context.Context, out *outgoing, first *incoming) error {
	if err := a.conn.skip(); err != nil {
		out.abandon()
		a.letGo(nil) // what was issued is for the answer that is put off
		return err
	}
	var got *MasterToken
	defer func() { a.finish(got) }()
	a.remember()
	if err := a.conn.write(ctx, out); err != nil {
		return err
	}
	in, err := a.conn.next(ctx, a)
	if err != nil {
		in.release()
		return err
	}
	if in.keyResponse == nil {
		in.release()
		return fail(ErrKeyXResponseRequestMismatch, "answer to a handshake without keys", nil)
	}
	got = in.keyResponse.token
	a.messageID = next(in.messageID)
	if a.reply == first {
		a.reply = nil // it is the caller's
	}
	a.answering(in)
	return nil
}

// A peerAnswer is an answer that was sent in a peer-to-peer network.
type peerAnswer struct {
	*attempt // our own tokens
	sent     *outgoing
	got      *MasterToken // by the peer's answer to it
}

func (t *peerAnswer) release(answered *incoming) {
	t.sent.abandon()
	t.finish(t.got)
	if t.reply != answered {
		t.answering(nil)
	}
}

// endPeer reads what the peer answers to an answer that asked for tokens.
func (w *ResponseWriter) endPeer() error {
	if !w.talk.sent.waits {
		return nil
	}
	in, err := w.conn.next(w.ctx, w.talk.attempt)
	if err == nil && in.keyResponse != nil {
		w.talk.got = in.keyResponse.token
	}
	in.release()
	return err
}
