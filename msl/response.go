package msl

import (
	"context"
	"time"
)

// A ResponseWriter takes the application's answer to a message. What an answer
// needs and the application does not decide is made before the application runs:
// session keys, tokens, and the header as a draft. Nothing is sent before the
// first 64 KiB, a Flush, or the end of the handler; until then tokens can be set,
// and an error of the handler goes to the peer as an MSL error. It is for one
// goroutine.
//
// A peer that may not read before it has sent its whole request is answered when
// that was read. Until then the answer is held back; a Flush, and an answer that
// grows over [Limits].Held, first read up to as much of the request into memory.
// Where that is not the whole of it, the flush is put off, and the answer refused.
type ResponseWriter struct {
	// Encrypted and Authenticated are what the answer needs. A request that had
	// them sets them; an answer that cannot have them becomes the error that
	// asks the peer for a key exchange.
	Encrypted, Authenticated bool

	push   bool // the message answers nothing
	ctx    context.Context
	server *Server
	in     *incoming

	user    string
	changes []TokenChange

	capabilities *Capabilities
	us           identification
	issued       *Session // by the key exchange of this answer
	keyResponse  *keyResponse
	userIDToken  *UserIDToken
	drafted      int64         // when its header was, in seconds since 1970
	payload      payloadWriter // has no protector until the header is made
	early        bool          // the answer cannot begin before the request was read
	failed       error         // why it cannot begin at all
	most         int           // bytes of it that were ever kept

	conn *Conn       // of a peer-to-peer network, or nil
	talk *peerAnswer // what was sent there
}

// SetServiceToken gives the peer a service token, or takes it away where data is
// empty. It replaces one of the same name and binding.
func (w *ResponseWriter) SetServiceToken(name string, data []byte, bind Binding) {
	w.changes = append(w.changes, TokenChange{name, data, bind})
}

// SetUser names the user that the peer shall have a user ID token for, where the
// application has authenticated one by itself.
func (w *ResponseWriter) SetUser(name string) { w.user = name }

// Answerable reports whether an answer can have the protection that Encrypted and
// Authenticated ask for: nil, or the error that asks the peer for a key exchange.
// An application that acts on a message and does not lower them asks before, and
// returns the error: the peer comes again with the same message.
func (w *ResponseWriter) Answerable() error {
	if w.conn != nil {
		return nil // we ask for keys of our own there
	}
	return w.checkProtection()
}

// Write adds application data to the answer.
func (w *ResponseWriter) Write(p []byte) (n int, err error) {
	for !w.made() {
		more := min(w.room(), len(p)-n)
		if err := w.occupy(more); err != nil {
			return n, lost(err)
		}
		w.payload.buffer = append(w.payload.buffer, p[n:n+more]...)
		if n += more; n == len(p) && w.room() > 0 {
			return n, nil
		}
		if err := w.overflow(); err != nil {
			return n, lost(err)
		}
	}
	if err := w.occupy(min(flushSize, len(p)-n)); err != nil {
		return n, lost(err)
	}
	more, err := w.payload.Write(p[n:])
	return n + more, lost(err)
}

// occupy asks for memory for so many more bytes of the answer.
func (w *ResponseWriter) occupy(more int) error {
	if err := w.in.account.hold(w.ctx, anAnswer, max(len(w.payload.buffer)+more, w.most)); err != nil {
		return fail(ErrInternalException, "answer", err)
	}
	w.most = max(len(w.payload.buffer)+more, w.most)
	return nil
}

// Flush sends what was written so far, unless the answer is held back.
func (w *ResponseWriter) Flush() error {
	if !w.made() {
		if w.stillHeld() {
			return nil
		}
		if err := w.begin(); err != nil || !w.made() {
			return lost(err)
		}
	}
	return lost(w.payload.Flush())
}

// begin makes the header and sends what was written, in whole chunks. An answer
// that cannot begin yet turns to waiting for the rest of the request, once.
func (w *ResponseWriter) begin() error {
	if w.failed != nil {
		return w.failed
	}
	if err := w.start(); err == errUnread && !w.early {
		w.early = true
		return nil
	} else if err != nil {
		w.failed = err
		return err
	}
	written := w.payload.buffer
	if len(written) < flushSize {
		return nil
	}
	w.payload.buffer = nil
	_, err := w.payload.Write(written)
	return err
}

// close ends the answer. The handler wants no more of the request.
func (w *ResponseWriter) close() error {
	if !w.made() {
		if w.held() && (w.conn != nil || len(w.payload.buffer) >= flushSize) {
			_ = w.in.body.discard() // what is wrong with it, the answer will meet
		}
		if err := w.begin(); err != nil {
			return lost(err)
		}
	}
	if err := w.payload.Close(); err != nil || w.conn == nil {
		return lost(err)
	}
	return w.endPeer()
}

// made reports whether the header is made, and nothing can be wished any more.
func (w *ResponseWriter) made() bool { return w.payload.protector != nil }

// begun reports whether a part of the answer may be out.
func (w *ResponseWriter) begun() bool { return w.made() && w.payload.head == nil }

// answer answers: a handshake by a lone header that makes no demands, and anything
// else by the application, once what it does not decide is made.
func (w *ResponseWriter) answer(handle Handler) error {
	if w.in.handshake {
		if err := w.prepare(); err != nil {
			return err
		}
		return w.sendHead()
	}
	w.Encrypted, w.Authenticated = w.in.sender.Encrypted, w.in.sender.Authenticated
	if err := w.prepare(); err != nil {
		return err
	}
	w.in.body.ctx = w.ctx // from now on, what fails is not to be repeated
	if err := w.handle(handle); err != nil {
		return err
	}
	return w.close()
}

// handle has the application answer. Until it returns, the rest of the request is
// its own.
func (w *ResponseWriter) handle(handle Handler) error {
	if c := w.conn; c != nil {
		c.handled, c.pending = w.in.body, nil
		defer func() { c.handled, c.pending = nil, w.in.body }()
	}
	return handle(w.ctx, w, w.in.message())
}

// sendHead answers a handshake.
func (w *ResponseWriter) sendHead() error {
	if err := w.start(); err != nil {
		return err
	}
	return w.payload.sendHead()
}

func (w *ResponseWriter) release() {
	w.us.release()
	if w.talk != nil {
		w.talk.release(w.in)
		return // what was issued went with it
	}
	if w.issued != nil {
		if !w.begun() || w.payload.err != nil {
			w.server.withdraw(w.issued) // nobody has it
		}
		w.issued.Release()
	}
}

// prepare makes what the answer needs, whatever the application will say: the
// keys and tokens that are due, and the header. The application decides what
// becomes of an answer that cannot have its protection.
func (w *ResponseWriter) prepare() error {
	w.payload.messageID = next(w.in.messageID)
	w.capabilities = w.in.capabilities.intersect(w.server.Capabilities)
	if err := w.issueTokens(); err != nil {
		return err
	}
	if w.conn != nil {
		return nil // the rest depends on the tokens that we hold ourselves
	}
	if err := w.identify(); err != nil {
		return err
	}
	if w.push || w.checkProtection() != nil {
		return nil
	}
	return w.makeDraft()
}

// identify says who answers: whoever asked with a master token is answered with
// it, also where the answer delivers a new one.
func (w *ResponseWriter) identify() (err error) {
	if w.in.token == nil {
		w.us, err = localIdentification(w.ctx, w.server.Local)
		return err
	}
	key := w.in.sender.Opener.(SymmetricKey) // of the session, which opened the request
	key.Rand = w.server.Issuer.Rand
	w.us = identification{token: w.in.token, protector: key}
	return nil
}

func (w *ResponseWriter) makeDraft() (err error) {
	now := w.server.Issuer.now()
	w.drafted = now.Unix()
	w.payload.head, err = w.makeHead(now)
	return err
}

// makeHead protects a header with all that the application wishes by now.
func (w *ResponseWriter) makeHead(now time.Time) ([]byte, error) {
	h, err := w.wished()
	if err != nil {
		return nil, err
	}
	return w.us.encodeMessage("headerdata", h.encode(now))
}

// start makes the header of the answer, and the payload that it is sent with.
func (w *ResponseWriter) start() error {
	if w.conn != nil {
		return w.startPeer()
	}
	if err := w.checkProtection(); err != nil {
		return err
	}
	if err := w.finishHead(); err != nil {
		return err
	}
	if w.issued != nil {
		w.server.offer(w.issued)
	}
	w.payload.protector, w.payload.compression = w.payloadProtector(), w.capabilities.compression()
	w.payload.ctx = w.ctx
	return nil
}

// maxDraftAge is how many seconds late the clock of a draft may be: the peer sets
// its own by it.
const maxDraftAge = 2

// finishHead makes a new header of a draft: where the application wishes what the
// draft does not have, or the draft is old. An old one is better than none.
func (w *ResponseWriter) finishHead() error {
	now, draft := w.server.Issuer.now(), w.payload.head
	usable := draft != nil && !w.wishes()
	if usable && now.Unix()-w.drafted < maxDraftAge {
		return nil
	}
	anew := func() (err error) {
		w.payload.head, err = w.makeHead(now)
		return err
	}
	if !usable {
		return persist(w.ctx, anew)
	}
	if anew() != nil {
		w.payload.head = draft
	}
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
	if w.Authenticated && !withKeys && !w.server.Local.Authenticates() {
		return fail(ErrResponseRequiresIntegrityProtection, "answer", nil)
	}
	if w.Encrypted && !withKeys && !w.server.Local.Encrypts() {
		return fail(ErrResponseRequiresEncryption, "answer", nil)
	}
	return nil
}
