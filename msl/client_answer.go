package msl

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// receive reads the answer and checks it by the rules of the protocol.
func (a *attempt) receive(ctx context.Context, decoder *wire.Decoder) (*incoming, error) {
	c, limits := a.client, &a.limits
	side := &receiver{
		entities: c.Peers,
		limits:   limits,
		rules:    headerRules{tokens: limits.Tokens, serviceTokens: c.ServiceTokens, delivers: c.offers},
		tokens:   sessionReader{a.tokens.session},
		watch:    a.watch,
	}
	first := (*wire.Decoder).First
	if a.purpose == pushed { // possibly after one that was refused
		first = firstAfter
	}
	o, err := first(decoder)
	in, err := side.read(ctx, o, err, decoder)
	if err != nil {
		return in, err
	}
	if in.err != nil {
		return in, a.judgeError(in)
	}
	if err = in.inflateTokens(ctx); err != nil {
		return in, withID(err, in.messageID)
	}
	var outcome Outcome
	if in.keyResponse != nil {
		if outcome, err = a.accept(ctx, in); err != nil {
			return in, withID(err, in.messageID)
		}
	}
	if err = a.check(in); err != nil {
		outcome.Keys.Release()
		return in, withID(err, in.messageID)
	}
	c.believeClock(in)
	if err := a.store(ctx, in, outcome); err != nil {
		return in, err
	}
	return in, nil
}

// judgeError checks an error answer by the rules of the protocol.
func (a *attempt) judgeError(in *incoming) error {
	if a.purpose != pushed && !idUnchecked(in.err.Response) && in.err.MessageID != next(a.messageID) {
		return withID(fail(ErrUnexpectedResponseMessageID, "error answer", nil), in.err.MessageID)
	}
	if a.req.Recipient != "" && !sameName(in.sender.Identity, a.req.Recipient) {
		return withID(fail(ErrMessageSenderMismatch, "error answer", nil), in.err.MessageID)
	}
	a.verdict, a.proven = in.err, nil
	if in.sender.Authenticated {
		a.proven = in.err
	}
	a.client.believeClock(in)
	return in.err
}

// isAnswer reports whether err is an error answer that was read. An error of the
// application's callbacks may wrap another one, from someone else.
func isAnswer(err error, verdict *PeerError) bool { return verdict != nil && errors.Is(err, verdict) }

// accept derives the new session keys from the answer to one of the offers.
func (a *attempt) accept(ctx context.Context, in *incoming) (Outcome, error) {
	if err := in.checkRecipient(a.us); err != nil {
		return Outcome{}, err
	}
	return a.offers.accept(ctx, in.keyResponse)
}

func (a *attempt) check(in *incoming) error {
	if err := in.checkForm(); err != nil {
		return err
	}
	if a.purpose == pushed { // nothing else tells it from a message of this side
		return in.checkSender(a.us)
	}
	if in.messageID != next(a.messageID) {
		return fail(ErrUnexpectedResponseMessageID, "answer", nil)
	}
	if a.req.Recipient != "" && in.token == nil && !sameName(in.sender.Identity, a.req.Recipient) {
		return fail(ErrMessageSenderMismatch, "answer", nil)
	}
	return nil
}

// store keeps the tokens that the answer delivers, and switches to the new session
// keys.
func (a *attempt) store(ctx context.Context, in *incoming, outcome Outcome) error {
	if in.keyResponse != nil {
		outcome.Keys.Acquire() // for this message; the client has the first reference
		old := in.release
		in.release = func() { old(); outcome.Keys.Release() }
		in.body.openWith(sessionKey("", in.keyResponse.token, outcome.Keys))
	}
	return a.keep(ctx, in.keyResponse, outcome, in.userIDToken, in.serviceTokens)
}

// keep stores tokens that were issued for this side, in one durable step.
func (a *attempt) keep(ctx context.Context, delivered *keyResponse, outcome Outcome, uit *UserIDToken, services []*ServiceToken) error {
	var fresh *holding
	if delivered != nil {
		fresh = &holding{token: delivered.token, keys: outcome.Keys, exchange: delivered.scheme, keep: outcome.Keep, giver: a.giver}
	}
	if fresh == nil && uit == nil && len(services) == 0 {
		return nil
	}
	kept, tooMany := false, error(nil)
	err := a.client.update(ctx, func(t *tokens) *tokens {
		all, ofUser := a.lease.keeps()
		if !all {
			return t
		}
		if !ofUser {
			uit = nil
		}
		kept = true
		n := t.withDelivered(fresh, a.req.User, uit, services)
		if tooMany = n.sends(&a.limits, a.req.User, t); tooMany != nil {
			return t.withDelivered(fresh, a.req.User, uit, nil)
		}
		return n
	})
	if !kept {
		outcome.Keys.Release()
	}
	if err == nil && tooMany != nil {
		err = fail(ErrMSLParseError, "service tokens", tooMany)
	}
	return err
}

// response passes the answer to the application; closing it calls release.
func (a *attempt) response(in *incoming, stream io.Closer, release func()) *Response {
	r := &Response{
		Identity: CanonicalName(in.sender.Identity), ServiceTokens: in.serviceTokens, MessageID: in.messageID,
		Body: &responseBody{data: in.body, answers: a.purpose != pushed, stream: stream, release: release},
	}
	if in.keyResponse != nil {
		r.KeyExchange = in.keyResponse.scheme
	}
	return r
}

type responseBody struct {
	data    io.Reader
	answers bool // a message, which this side sent
	stream  io.Closer
	release func()
}

// Read implements [io.Reader].
func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.data.Read(p)
	if b.answers {
		err = unread(err)
	}
	return n, err
}

// ErrAnswerUnread says that an answer arrived, but this side's key store failed while it
// was read: the peer has acted on the message, or refused it. It accompanies the error of
// the key store.
var ErrAnswerUnread = errors.New("msl: an answer came but cannot be read, so the peer may have acted on the message")

// unread marks a key store failure during the reading of an answer. Without the mark it
// would look like one before anything was sent.
func unread(err error) error {
	if err == nil || !deviceFailed(err) || errors.Is(err, ErrAnswerUnread) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrAnswerUnread, err)
}

func (b *responseBody) Close() error {
	if b.release == nil {
		return nil
	}
	err := b.stream.Close() // may read the rest of the answer, which needs the keys
	b.release()
	b.release = nil
	return err
}

// recover prepares another try after an error answer, and drops the tokens that the
// answer makes useless. It reports whether to try again.
func (a *attempt) recover(ctx context.Context, e *PeerError) (again bool, err error) {
	r := recoveries[e.Response]
	newest, err := a.forget(ctx, r, a.proven == e)
	a.messageID = next(e.MessageID)
	if mistimed(a, e) {
		return true, err // the same again
	}
	a.demands = a.demands.after(e.Response, a.plan, newest)
	if e.Response == Replayed {
		a.ids.overtaken++
	}
	if r.askUser {
		a.reason, a.proof = e.Response, nil
	}
	// An unauthenticated refusal asks for no other entity: it could come from anyone who
	// wants to see this side under another name.
	if r.askEntity && err == nil && a.proven == e && a.client.EntityAuth != nil {
		return a.as.ask(ctx, e.Response)
	}
	return r.again && (!r.askUser || a.req.User != ""), err
}

// forget drops the tokens that an error answer makes useless, if the answer was
// authenticated. newest says that the client still holds the tokens of the message.
func (a *attempt) forget(ctx context.Context, r recovery, proven bool) (newest bool, err error) {
	used, user := a.tokens.session, a.user
	if r.forgetUser || r.askUser {
		a.refused = user
	}
	err = a.client.update(ctx, func(t *tokens) *tokens {
		newest = t.session == used
		if r.forgetEntity && proven && used != nil && t.session == used {
			t = t.withMaster(nil)
		}
		if r.forgetUser && proven && user != nil && t.users[a.req.User] == user {
			t = t.withUser(a.req.User, nil)
		}
		return t
	})
	return newest, err
}
