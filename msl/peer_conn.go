package msl

import (
	"cmp"
	"context"
	"errors"
	"io"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A Conn is one side of a peer-to-peer network, on one connection to the other side. Each
// side issues tokens for the other. Each is therefore a server to the other, which has
// the issuer and judges the peer's messages, and a client of the other, which holds the
// tokens that the peer issued. The client's Transport and Peers are not used.
//
// A Conn is for one goroutine, and one exchange at a time. Either side may start one with
// Request; the other side answers it with Serve.
type Conn struct {
	Server *Server
	Client *Client
	// Source names the other end, for the limits on what it may ask for.
	Source string
	// Headers, if not nil, is called with the headers of this connection, instead of the
	// Headers of Server and Client. It must not block.
	Headers func(HeaderInfo)

	rw      *link
	id      *byte  // identifies the connection
	inlet   *inlet // reads rw, using the memory of the current exchange
	in      *wire.Decoder
	pending *payloadReader // of the previous message, which may have unread data
	handled *payloadReader // of the request being answered by a handler, or nil
	writing chan error     // the result of the message being written in the background, or nil
	theirs  peerTokens     // issued by this side for the peer, if known
}

// NewConn makes a Conn on rw. If rw is an [io.Closer], the end of an exchange's
// context closes it; nothing else could interrupt a blocked read or write.
func NewConn(rw io.ReadWriter, server *Server, client *Client) *Conn {
	server.init()
	l := &link{rw: rw}
	i := &inlet{r: l, as: anObject}
	return &Conn{Server: server, Client: client, id: new(byte), rw: l, inlet: i, in: wire.NewDecoder(i, server.Limits.wire())}
}

// begin starts an exchange, whose messages share the server's memory with others. The
// exchange ends with ctx.
func (c *Conn) begin(ctx context.Context) (end func(), err error) {
	if err := c.in.Err(); err != nil { // the start of the next message is unknown
		return func() {}, brokeOff(err)
	}
	c.inlet.account.close() // of an answer that was not closed
	a := c.Server.memory.open(c.Source, c.rw)
	c.inlet.ctx, c.inlet.account = ctx, a
	unbind := c.rw.bind(ctx)
	c.pending.keep()
	return func() { a.close(); unbind() }, errors.Join(c.in.Shrink(), a.hold(ctx, aRelay, c.in.Buffered()))
}

// Serve reads one request from the other side and answers it. It returns io.EOF
// if the connection ended between two exchanges. If six handshakes came and no request,
// the other side is sent nothing more, not even an error, as in the reference stack; the
// caller then ends the connection.
//
// An answer is sent while its request is still being read only if the peer shows a token
// that this side issued and the peer holds, or delivers a token. Any other peer may first
// have to be asked for keys, or may not read until it has sent everything, so its answer
// is held back ([ResponseWriter]).
func (c *Conn) Serve(ctx context.Context, handle Handler) error {
	if c.handled != nil {
		return errExchanging
	}
	end, err := c.begin(ctx)
	defer end()
	if err := errors.Join(err, c.Client.load(ctx)); err != nil {
		return err
	}
	if c.pending == nil && c.in.Buffered() == 0 {
		c.rw.Between()
	}
	c.inlet.account.movement.first()
	before := c.rw.sent.Load()
	wrote := func() int64 { return c.rw.sent.Load() - before }
	ctx, span := beginSpan(ctx, c.Server.Tracer)
	in, err := c.serve(ctx, wrote, handle)
	defer func() { in.release() }()
	if err == io.EOF || errors.As(err, new(*goneError)) { // no message came; its span does not end
		return err
	}
	in.end.source, in.end.wrote, in.end.span = c.Source, wrote, span
	in.tell(ctx, c.Server, c.inlet.account, err)
	if c.inlet.account.refused {
		_, _, took := c.inlet.account.movement.totals()
		c.Server.admission.linger(took)
	}
	return err
}

// serve answers the next request. The caller releases it. wrote reports how many bytes
// were sent.
func (c *Conn) serve(ctx context.Context, wrote func() int64, handle Handler) (*incoming, error) {
	in, err := c.next(ctx, nil)
	for count := 1; err == nil && in.handshake; {
		if count+2 > maxMessages {
			return in, errors.New("msl: too many handshakes in one exchange")
		}
		in, count, err = c.answerHandshake(ctx, in, count)
	}
	returned := false
	defer in.closeUnless(&returned)
	c.inlet.account.refused = err != nil && !in.sender.Authenticated
	err = c.respond(ctx, in, err, wrote, handle)
	returned = true
	return in, err
}

// respond answers a request that was read, or refused with err.
func (c *Conn) respond(ctx context.Context, in *incoming, err error, wrote func() int64, handle Handler) error {
	switch {
	case noMessage(err):
		return io.EOF
	case errors.As(err, new(*goneError)):
		return err
	case in.err != nil: // an error is never answered
		return cmp.Or(err, error(in.err))
	case err != nil:
		return c.refuse(ctx, in, err)
	}
	c.pending, in.end.source, in.end.wrote = in.body, c.Source, wrote
	in.followed = func() bool { return c.in.Buffered() > 0 }
	w := c.answer(ctx, in)
	defer w.release()
	err = w.answer(c.handling(in, handle))
	answered := err == nil
	switch in.end.exchange = w.gives.exchange(); {
	case errors.Is(err, ErrNoReply) && !w.begun():
		err = nil
	case err != nil && !w.begun() && !w.brokeOff(err):
		err = c.refuse(ctx, in, in.applicationError(err, w.failed))
	}
	if err := errors.Join(err, c.skip()); err != nil || !answered {
		return err
	}
	return w.afterward()
}

// watch is the function called with headers.
func (c *Conn) watch() watcher {
	if c.Headers != nil {
		return c.Headers
	}
	return c.Server.Headers
}

func (c *Conn) answer(ctx context.Context, in *incoming) *ResponseWriter {
	w := &ResponseWriter{ctx: ctx, in: in, payload: payloadWriter{out: c.rw}}
	w.gives = issuance{ctx: ctx, server: c.Server, in: in}
	w.network = &peerReply{ResponseWriter: w, conn: c}
	return w
}

// handling gives the rest of the request to the handler until the handler returns.
func (c *Conn) handling(in *incoming, handle Handler) Handler {
	return func(ctx context.Context, w *ResponseWriter, m *Message) error {
		c.handled, c.pending = in.body, nil
		defer func() { c.handled, c.pending = nil, in.body }()
		return handle(ctx, w, m)
	}
}

// errExchanging says that a handler tried to use the connection of its own request.
var errExchanging = errors.New("msl: the connection is in an exchange already: let the handler return first")

// refuse answers with an error while it reads the rest of the refused message: the peer
// may not read the answer until it has sent everything.
func (c *Conn) refuse(ctx context.Context, in *incoming, cause error) error {
	if err := c.written(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- c.Server.refuse(ctx, c.Source, c.rw, in, cause) }()
	return errors.Join(c.skip(), <-done)
}

// answerHandshake answers with a lone header, which may ask the peer for keys, and reads
// the message that follows. If that is an error, it recovers as a request does. It counts the
// messages. If it cannot make the header, it returns the handshake, which the error then answers.
func (c *Conn) answerHandshake(ctx context.Context, in *incoming, count int) (*incoming, int, error) {
	a := c.attempt(&Request{}, in)
	a.purpose = loneHeader
	returned := false
	defer func() {
		if !returned {
			in.release()
		}
	}()
	for {
		out, following, err := a.turn(ctx, true)
		if out == nil {
			in.err, returned = a.verdict, true // what would be answered is the peer's error, if there is one
			return in, count, err
		}
		if count += 2; !isAnswer(err, a.verdict) {
			return following, count, err
		}
		if again, failed := a.recover(ctx, a.verdict); !again || failed != nil || count+2 > maxMessages {
			return following, count, errors.Join(err, failed)
		}
		following.release()
	}
}

// Request sends a request to the other side and returns its answer, whose body must be
// closed before the connection is used again: closing it also gives the other side new
// tokens, if its answer asks for them.
func (c *Conn) Request(ctx context.Context, req *Request) (*Response, error) {
	return c.run(ctx, c.attempt(req, nil))
}

// Send sends a message that expects no answer, after a handshake if one is needed. The
// other side reads it with Serve, and its handler returns [ErrNoReply].
func (c *Conn) Send(ctx context.Context, req *Request) error {
	a := c.attempt(req.unanswered(), nil)
	a.purpose = oneWay
	_, err := c.run(ctx, a)
	return err
}

// run sends messages until the request is answered.
func (c *Conn) run(ctx context.Context, a *peerAttempt) (response *Response, err error) {
	if c.handled != nil {
		return nil, errExchanging
	}
	end, err := c.begin(ctx)
	defer func() {
		if response == nil {
			end()
		}
	}()
	if err := errors.Join(err, c.Client.load(ctx)); err != nil {
		return nil, err
	}
	if a.messageID, err = randomNumber(c.Client.Rand); err != nil {
		return nil, err
	}
	defer a.turnTo(nil)
	var refused error
	for count := 2; count <= maxMessages; count += 2 {
		out, in, err := a.turn(ctx, true)
		if isAnswer(err, a.verdict) {
			in.release()
			refused, a.remade = err, false
			if again, err := a.recover(ctx, a.verdict); !again || err != nil || a.req.Interactive {
				return nil, errors.Join(refused, err)
			}
			a.turnTo(nil) // the tokens it asked for were sent
			continue
		}
		if errors.Is(err, errSpent) { // nothing was sent; the next try starts a new session
			count -= 2
			continue
		}
		if err != nil {
			in.release()
			return nil, afterRefusal(a.attempt, refused, err)
		}
		if out.handshake {
			a.turnTo(in)
			a.demands = demands{}
			continue
		}
		if a.purpose == oneWay { // before the end of the exchange, as ctx no longer ends the sending after it
			return nil, c.written()
		}
		if in, count, err = a.realAnswer(ctx, in, count); err != nil {
			in.release()
			return nil, err
		}
		return a.peerResponse(ctx, in, count, end), nil
	}
	return nil, errors.Join(refused, errUnanswered)
}

// A drainer closes an answer without closing its connection.
type drainer struct {
	ctx     context.Context
	attempt *peerAttempt
	in      *incoming
	end     func() // of the exchange
}

// Close also gives the peer the tokens that its answer asks for. They cannot be sent
// before the request is complete, and the peer may not read all of the request before
// its answer is read.
func (d *drainer) Close() error {
	defer d.end()
	c := d.attempt.conn
	err := errors.Join(c.skip(), c.written())
	if err != nil || !d.in.due() {
		return err
	}
	_, err = d.attempt.serveKeys(d.ctx, d.in)
	return errors.Join(err, c.written())
}

// skip reads the rest of the previous message, up to the start of the next one. A handler
// that has not read its whole request is an error.
func (c *Conn) skip() error {
	if c.handled != nil && !c.handled.done.Load() {
		return errUnread
	}
	c.handled.keep()
	err := c.pending.discard()
	c.pending.over()
	c.pending = nil
	return err
}

// write sends a message in the background: the peer may answer before it has read
// everything, and may not read on until its answer is read.
func (c *Conn) write(ctx context.Context, out *outgoing) error {
	if err := c.written(); err != nil {
		out.abandon()
		return err
	}
	done := make(chan error, 1)
	c.writing = done
	go func() {
		err := out.write(ctx, c.rw)
		if err != nil {
			c.rw.breakOff(err)
		}
		done <- err
	}()
	return nil
}

// written waits for the message being sent.
func (c *Conn) written() error {
	if c.writing == nil {
		return nil
	}
	err := <-c.writing
	c.writing = nil
	return err
}

// A goneError says that the other side went away and no message came.
type goneError struct{ error }

// Unwrap returns the error of the connection.
func (e *goneError) Unwrap() error { return e.error }

// next reads a message: the answer to the message that a sent, or a request if a is nil.
func (c *Conn) next(ctx context.Context, a *peerAttempt) (*incoming, error) {
	if err := c.skip(); err != nil {
		return nobody(), err
	}
	side := c.Server.receiver()
	side.account, side.watch = c.inlet.account, c.watch()
	side.rules.peerToPeer, side.rules.peerServices = true, c.Client.ServiceTokens
	side.rules.delivers = c.Client.offers
	o, err := firstAfter(c.in) // payloads of a refused message may remain
	if gone := unheard(c.in, err); a == nil && gone != nil {
		return nobody(), &goneError{gone}
	}
	if a == nil {
		side.account.movement.came()
	}
	in, err := side.read(ctx, o, err, c.in)
	if err != nil || in.err != nil && a == nil {
		return in, err
	}
	if err := in.checkMirrored(c.Server.Name); err != nil {
		return in, withID(err, in.messageID)
	}
	if in.err != nil {
		return in, a.judgeError(in)
	}
	returned := false
	defer in.closeUnless(&returned)
	if a == nil {
		err = c.checkRequest(ctx, in)
	} else {
		err = a.checkAnswer(ctx, in)
	}
	returned = true
	return in, withID(err, in.messageID)
}

// checkRequest checks a message that does not answer one. Service tokens in it are kept if its
// sender is authenticated: anyone could otherwise delete those of others, or leave no room.
func (c *Conn) checkRequest(ctx context.Context, in *incoming) error {
	if err := c.Server.accept(ctx, in); err != nil || !in.sender.Authenticated {
		return err
	}
	c.Client.believeClock(in)
	return c.Client.attempt(&Request{}).keep(ctx, nil, Outcome{}, nil, in.peer.services)
}
