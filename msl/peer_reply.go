package msl

import "errors"

// A peerReply answers a peer under the tokens that this side holds, after a handshake if
// one is needed.
type peerReply struct {
	*ResponseWriter
	conn *Conn
	talk *peerAnswer // the answer that was sent, or nil
}

// prepare does nothing: the header depends on the tokens held when the answer begins.
func (w *peerReply) prepare() error { return nil }

// answerable returns nil: this side can ask the peer for the keys that it lacks.
func (w *peerReply) answerable() error { return nil }

// halfDuplex reports whether the peer must be asked for keys first, or may not read while
// it sends.
func (w *peerReply) halfDuplex() bool { return w.early || !w.conn.listens(w.in) }

// asksFirst reports true: this side may have to send a handshake first.
func (w *peerReply) asksFirst() bool { return true }

func (w *peerReply) release() {
	if w.talk != nil {
		w.talk.end(w.in) // it releases the issued tokens too
		return
	}
	w.gives.withdraw()
	w.gives.release()
}

// listens reports whether the sender of a request reads while it sends, and can be
// answered without a handshake. It must know the token that this side holds. The
// reference stack, which sends everything before it reads, shows no token.
func (c *Conn) listens(in *incoming) bool {
	held := c.Client.master()
	return in.keyResponse != nil || held != nil && in.shows(held)
}

// start sends the header of an answer in a peer-to-peer network. If the data needs
// protection for which this side has no keys yet, a handshake is sent first.
func (w *peerReply) start() (err error) {
	w.gives.uncompressed = w.Uncompressed
	a := w.conn.attempt(&Request{Encrypted: w.Encrypted, Authenticated: w.Authenticated, Uncompressed: w.Uncompressed}, w.in)
	a.answer = &w.gives
	if len(w.payload.buffer) > 0 {
		a.req.Body = BytesBody(w.payload.buffer[:1]) // only whether there is data matters here
	} else if !w.in.body.done.Load() {
		a.purpose = oneWay // keys without data would need a handshake, which waits for the rest of the request
	}
	defer func() {
		if err != nil && a.reply != w.in {
			err = withID(err, a.reply.messageID) // an error now answers this message
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
		if err = a.shakeHands(w.ctx, out, w.in); isAnswer(err, a.verdict) {
			err = w.recover(a, count+2)
		}
		if err != nil {
			return err
		}
	}
	return errors.New("msl: the peer gave no keys within 12 messages")
}

// recover prepares another handshake after the peer refused one, as a request does. If there is
// none, it returns the refusal, which is not answered.
func (w *peerReply) recover(a *peerAttempt, count int) error {
	again, err := a.recover(w.ctx, a.verdict)
	if again && err == nil && count+2 <= maxMessages {
		return nil
	}
	w.refused = true
	a.release()
	return errors.Join(a.verdict, err)
}

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
	*peerAttempt // with this side's tokens
	sent         *outgoing
	got          *MasterToken // delivered by the peer's answer to it
}

// end releases the tokens of the answer, and the message it answers unless that is
// answered.
func (t *peerAnswer) end(answered *incoming) {
	t.sent.abandon()
	t.finish(t.got)
	if t.reply != answered {
		t.turnTo(nil)
	}
}

// end reads the peer's reply to an answer that asked for tokens.
func (w *peerReply) end() error {
	if !w.talk.sent.waits {
		return nil
	}
	a := w.talk.peerAttempt
	in, err := w.conn.next(w.ctx, a)
	if err == nil && in.keyResponse != nil {
		w.talk.got = in.keyResponse.token
	}
	in.release()
	if isAnswer(err, a.verdict) { // too late for this answer, but not for the next one
		_, forgotten := a.recover(w.ctx, a.verdict)
		err = errors.Join(err, forgotten)
	}
	return err
}
