package msl

import (
	"context"
	"errors"
	"io"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// Push sends to out a message that is not an answer: the application's own message to the
// sender of the request. Call it while the handler of w runs, or from
// [ResponseWriter.Afterward]. It uses the tokens and keys of the request, or those that
// its answer delivered, and issues only service tokens. Its data is what write writes.
// The peer reads it with an [Inbox].
func (w *ResponseWriter) Push(out io.Writer, write func(*ResponseWriter) error) error {
	if _, trusted := w.network.(*trustedReply); !trusted {
		return errors.New("msl: push is for trusted services; in a peer-to-peer network use Conn.Send")
	}
	p := w.gives.server.answer(w.ctx, w.in, out)
	p.Encrypted, p.Authenticated, p.Uncompressed, p.gives.push = w.Encrypted, w.Authenticated, w.Uncompressed, true
	if w.made() { // the peer has what the answer delivered
		p.gives.delivered, p.gives.userIDToken = w.gives.session, w.gives.userIDToken
	}
	defer p.release()
	if err := p.prepare(); err != nil {
		return err
	}
	if err := write(p); err != nil {
		return err
	}
	return p.close()
}

// An Inbox reads the messages that a server pushes on one stream, one at a time. It is
// for one goroutine.
type Inbox struct {
	// User is the local user whose service tokens the messages may bring.
	User string

	client  *Client
	in      *wire.Decoder
	pending *payloadReader // of the previous message, which may have unread data
}

// NewInbox makes an Inbox on a stream from the client's server.
func (c *Client) NewInbox(r io.Reader) *Inbox {
	return &Inbox{client: c, in: wire.NewDecoder(r, c.Limits.forClient().wire())}
}

// Receive returns the next message, whose body must be closed before the next call. It
// opens the message with the tokens that the client then holds. The error is io.EOF if
// the stream ended between two messages.
func (i *Inbox) Receive(ctx context.Context) (*Response, error) {
	if err := i.client.load(ctx); err != nil {
		return nil, err
	}
	a := i.client.attempt(&Request{User: i.User})
	a.purpose = pushed
	local, err := localIdentification(ctx, a.as.entity, nil)
	if err != nil {
		return nil, err
	}
	a.us = local.local.Identity
	local.release()
	if a.tokens, _, _, err = i.client.snapshot(); err != nil {
		return nil, err
	}
	defer a.tokens.release()
	in, err := a.receive(ctx, i.in)
	if err != nil {
		in.release()
		if noMessage(err) {
			return nil, io.EOF
		}
		return nil, err
	}
	i.pending = in.body
	return a.response(in, i, in.release), nil
}

// Close reads the rest of the current message. It leaves the stream open.
func (i *Inbox) Close() error {
	if i.pending == nil {
		return nil
	}
	err := i.pending.discard()
	i.pending.over()
	i.pending = nil
	return err
}
