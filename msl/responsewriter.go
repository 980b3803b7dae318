package msl

import (
	"context"
	"errors"
)

// A ResponseWriter takes the application's answer to a message. Session keys, tokens and
// a draft of the header, which the application does not decide, are made before it runs.
// Nothing is sent before the first 64 KiB, a Flush, or the end of the handler. Until then
// tokens can be set, and a handler's error goes to the peer as an MSL error. It is for
// one goroutine.
//
// A peer that may not read until it has sent its whole request is answered once the
// request has been read; until then the answer is held back. A Flush, or an answer longer
// than [Limits].Held, first reads up to Held bytes of the request into memory. If more of
// the request remains, the Flush does nothing, and the long answer fails.
type ResponseWriter struct {
	// Encrypted and Authenticated say how the answer must be protected. Initially they
	// match the request. An answer that cannot be protected so becomes the error that
	// asks the peer for a key exchange.
	Encrypted, Authenticated bool

	// Uncompressed sends the answer and its new service tokens uncompressed. Use it for
	// an answer with a secret next to text that someone else can choose; see [Request].
	// It has an effect until the first bytes are sent.
	Uncompressed bool

	early   bool // it turned out that the answer has to wait for the rest of the request
	refused bool // by the peer: an error is never answered

	ctx     context.Context
	in      *incoming
	gives   issuance
	network replyNetwork
	payload payloadWriter // has no protector until the header is made

	failed error // why it cannot begin
	after  func() error
	most   int // bytes that memory is reserved for
}

// A replyNetwork has the parts of an answer that depend on the kind of network:
// trusted services ([trustedReply]) or peers ([peerReply]).
type replyNetwork interface {
	// prepare makes what the answer needs besides the issued tokens.
	prepare() error
	// answerable returns nil if the answer can be protected as required, or why not.
	answerable() error
	// start makes the header of the answer, and the writer of its payload.
	start() error
	// halfDuplex reports whether the peer may not read while it sends.
	halfDuplex() bool
	// asksFirst reports whether a handshake, which has to wait for the rest of the
	// request, may have to come before the answer.
	asksFirst() bool
	// end is called when the answer was sent.
	end() error
	// release releases the tokens and keys of the answer.
	release()
}

// SetServiceToken gives the peer a service token, or deletes it if data is
// empty. It replaces the token of the same name and binding.
func (w *ResponseWriter) SetServiceToken(name string, data []byte, bind Binding) {
	w.ChangeServiceToken(TokenChange{Name: name, Data: data, Bind: bind})
}

// ChangeServiceToken is SetServiceToken with all the options of a change.
func (w *ResponseWriter) ChangeServiceToken(c TokenChange) {
	w.gives.changes = append(w.gives.changes, c)
}

// SetUser names the user for whom the peer gets a user ID token, if the application
// itself has authenticated a user.
func (w *ResponseWriter) SetUser(name string) { w.gives.user = name }

// Afterward makes f run after the answer was sent on a persistent connection
// ([Server.ServeStream], [Conn.Serve]), before the next message is read; it does not run
// if part of that has arrived. In f the server may [ResponseWriter.Push]; a peer uses
// [Conn.Send] once Serve has returned.
func (w *ResponseWriter) Afterward(f func() error) { w.after = f }

// Answerable reports whether an answer can have the protection that Encrypted and
// Authenticated ask for: nil, or the error that asks the peer for a key exchange. An
// application that acts on a message without lowering them calls it first and returns its
// error; the peer then sends the same message again.
func (w *ResponseWriter) Answerable() error { return w.network.answerable() }

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

// occupy reserves memory for the answer to grow by more bytes.
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

// begin makes the header and sends what was written, in whole chunks. An answer that
// cannot begin yet switches, once, to waiting for the rest of the request.
func (w *ResponseWriter) begin() error {
	if w.failed != nil {
		return w.failed
	}
	if err := w.network.start(); err == errUnread && !w.early {
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

// close ends the answer. The handler no longer wants the request.
func (w *ResponseWriter) close() error {
	if !w.made() {
		if w.isHeld() && (w.network.asksFirst() || len(w.payload.buffer) >= flushSize) {
			_ = w.in.body.discard() // an error recurs when the answer is sent
		}
		if err := w.begin(); err != nil {
			return lost(err)
		}
	}
	if err := w.payload.Close(); err != nil {
		return lost(err)
	}
	return w.network.end()
}

// made reports whether the header is made, and can no longer be changed.
func (w *ResponseWriter) made() bool { return w.payload.protector != nil }

// begun reports whether part of the answer may have been sent.
func (w *ResponseWriter) begun() bool { return w.made() && w.payload.head == nil }

// brokeOff reports whether err says that the message, or one that the peer sent in
// between, broke off or was an error; a message that the application reads from someone else
// does not count.
func (w *ResponseWriter) brokeOff(err error) bool {
	return w.refused || errors.Is(err, ErrTruncated) && (errors.Is(w.in.body.failure(), ErrTruncated) || errors.Is(w.failed, ErrTruncated))
}

// answer answers the message: a handshake with a lone header that asks for nothing,
// anything else by running the application, after everything else has been made.
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
	w.in.body.ctx = w.ctx // after this, the peer must not be asked to send the message again
	if err := handle(w.ctx, w, w.in.message()); err != nil {
		return err
	}
	return w.close()
}

// afterward runs what the application deferred until after its answer.
func (w *ResponseWriter) afterward() error {
	if w.after == nil || w.in.followed != nil && w.in.followed() {
		return nil
	}
	w.in.body.shut() // what comes now does not belong to this message
	w.in.end.exchange = w.gives.exchange()
	w.in.tell(w.ctx, w.gives.server, w.in.account, nil) // what follows may take long
	return w.after()
}

// sendHead answers a handshake.
func (w *ResponseWriter) sendHead() error {
	if err := w.network.start(); err != nil {
		return err
	}
	return w.payload.sendHead()
}

func (w *ResponseWriter) release() {
	w.payload.abandon()
	w.network.release()
}

// prepare makes what the answer needs, whatever the application will say: the keys and
// tokens that are due, and the header. If the answer cannot be protected as required, the
// application decides what to do.
func (w *ResponseWriter) prepare() error {
	leave, err := w.in.admittedToKeys(w.ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := w.gives.prepare(); err != nil {
		return err
	}
	w.payload.messageID = w.gives.messageID
	return w.network.prepare()
}
