package msl

import "errors"

// A peerReply answers a peer: under the tokens that we hold ourselves, and maybe after
// a handshake of our own.
type peerReply struct {
	*ResponseWriter
	conn *Conn
	talk *peerAnswer // what was sent, or nil
}

// prepare has nothing more to make: the rest depends on the tokens that we hold.
func (w *peerReply) prepare() error { return nil }

// answerable reports no obstacle: we ask the peer for keys ourselves.
func (w *peerReply) answerable() error { return nil }

// halfDuplex reports whether the peer has to be asked for keys first, or may not read
// while it sends.
func (w *peerReply) halfDuplex() bool { return w.early || !w.conn.listens(w.in) }

// asksFirst reports true: a handshake of our own may have to come first.
func (w *peerReply) asksFirst() bool { return true }

func (w *peerReply) release() {
	if w.talk != nil {
		w.talk.end(w.in) // what was issued goes with it
		return
	}
	w.gives.withdraw()
	w.gives.release()
}

// listens reports whether the sender of a request reads while it sends, and can
// be answered without a message of its own before. It has to know a token that we
// hold: the reference stack, which writes first, shows none.
func (c *Conn) listens(in *incoming) bool {
	held := c.Client.master()
	return in.keyResponse != nil || held != nil && in.shows(held)
}

// start sends the header of an answer in a peer-to-peer network. Where the
// data needs protection that we do not have yet, a handshake of our own goes
// first.
func (w *peerReply) start() (err error) {
	w.gives.uncompressed = w.Uncompressed
	a := w.conn.attempt(&Request{Encrypted: w.Encrypted, Authenticated: w.Authenticated, Uncompressed: w.Uncompressed}, w.in)
	a.answer = &w.gives
	if len(w.payload.buffer) > 0 {
		a.req.Body = BytesBody(w.payload.buffer[:1]) // there is data; how much does not matter here
	} else { // keys without data would need a handshake, which waits for the rest of the request
		a.oneWay = w.in.body != nil && !w.in.body.done.Load()
	}
	defer func() {
		if err != nil && a.reply != w.in {
			err = withID(err, a.reply.messageID) // that is what an error answers by now
			a.turnTo(nil)
		}
	}()
	for count := 3; count+2 <= maxMessages; count += 2 {
		out, err := a.persist(w.ctx)
		if err != nil {
			return err
		}
		if !out.handshake {
			return w.send(a, out)
		}
		if err := a.shakeHands(w.ctx, out, w.in); err != nil {
			return err
		}
	}
	return errors.New("msl: the peer gave no keys within 12 messages")
}

// send sends the header of an answer.
func (w *peerReply) send(a *peerAttempt, out *outgoing) error {
	w.talk = &peerAnswer{peerAttempt: a, sent: out}
	buffer, to := w.payload.buffer, w.payload.out
	w.payload = out.payload
	w.payload.buffer, w.payload.ctx, w.payload.out = buffer, w.ctx, to
	a.remember()
	if err := w.conn.written(); err != nil {
		return err
	}
	return out.writeHead(to)
}

// A peerAnswer is an answer that was sent in a peer-to-peer network.
type peerAnswer struct {
	*peerAttempt // our own tokens
	sent         *outgoing
	got          *MasterToken // by the peer's answer to it
}

// end lets go of what the answer held, and of what it answers if that is not answered.
func (t *peerAnswer) end(answered *incoming) {
	t.sent.abandon()
	t.finish(t.got)
	if t.reply != answered {
		t.turnTo(nil)
	}
}

// end reads what the peer answers to an answer that asked for tokens.
func (w *peerReply) end() error {
	if !w.talk.sent.waits {
		return nil
	}
	in, err := w.conn.next(w.ctx, w.talk.peerAttempt)
	if err == nil && in.keyResponse != nil {
		w.talk.got = in.keyResponse.token
	}
	in.release()
	return err
}
