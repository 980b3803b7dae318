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
}

// show adds what we issue for the peer to the header of an answer.
func (a *attempt) show(ctx context.Context, h *header) error {
	if a.conn == nil {
		return nil
	}
	if a.reply == nil {
		h.peer.master, h.peer.user = a.conn.theirs.master, a.conn.theirs.user
		return nil
	}
	if a.answer == nil || a.answer.in != a.reply {
		a.answer = &ResponseWriter{ctx: ctx, server: a.conn.Server, in: a.reply}
	}
	h.capabilities = a.reply.capabilities.intersect(a.client.Capabilities)
	issued := header{capabilities: h.capabilities}
	if err := a.answer.exchangeKeys(&issued); err != nil {
		return err
	}
	if err := a.answer.userToken(&issued); err != nil {
		return err
	}
	if err := a.answer.tokens(&issued); err != nil {
		return err
	}
	h.keyResponse = issued.keyResponse
	h.peer = peerTokens{master: a.reply.token, user: issued.userIDToken, services: issued.serviceTokens}
	a.conn.theirs = peerTokens{master: a.answer.masterToken(), user: issued.userIDToken}
	return nil
}

// turn sends one message and, if an answer is due, reads it.
func (a *attempt) turn(ctx context.Context, wait bool) (*outgoing, *incoming, error) {
	nobody := &incoming{release: func() {}}
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
	if err := a.conn.write(ctx, out); err != nil || !wait {
		return out, nobody, err
	}
	in, err := a.conn.next(ctx, a)
	if err == nil {
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
	if len(w.pending) > 0 {
		a.req.Body = BytesBody(w.pending[:1]) // there is data; how much does not matter here
	}
	defer func() {
		if err != nil && a.reply != w.in {
			a.answering(nil)
		}
	}()
	for count := 3; count+2 <= maxMessages; count += 2 {
		if err := a.takeTokens(w.ctx); err != nil {
			return err
		}
		out, err := a.build(w.ctx)
		if err != nil {
			a.finish(nil)
			return err
		}
		if !out.handshake {
			w.talk, w.waits, w.sent = a, out.waits, out
			w.payload, w.started = &out.payload, true
			w.payload.out = w.out
			if err = w.conn.written(); err == nil {
				_, err = w.out.Write(out.head)
			}
			return err
		}
		if err := a.shakeHands(w.ctx, out, w.in); err != nil {
			return err
		}
	}
	return errors.New("msl: the peer gave no keys within 12 messages")
}

// shakeHands sends a handshake and takes the keys of the answer, which the next
// message answers.
func (a *attempt) shakeHands(ctx context.Context, out *outgoing, first *incoming) error {
	var got *MasterToken
	defer func() { a.finish(got) }()
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

// endPeer reads what the peer answers to an answer that asked for tokens.
func (w *ResponseWriter) endPeer() error {
	if !w.waits {
		return nil
	}
	in, err := w.conn.next(w.ctx, w.talk)
	if err == nil && in.keyResponse != nil {
		w.got = in.keyResponse.token
	}
	in.release()
	return err
}
