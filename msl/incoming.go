package msl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// An incoming is a message whose header was verified and read.
type incoming struct {
	header
	err     *PeerError // the message is an error
	sender  Sender
	scheme  string         // the sender's entity scheme, or
	token   *MasterToken   // the master token it used
	session *Session       // of the token
	user    string         // authenticated by the message, or empty
	body    *payloadReader // nil, or of payload
	payload payloadReader
	account *account // counts the memory in use; nil counts nothing
	limits  *Limits
	watch   watcher
	end     ending
	release func() // of the sender's keys

	admission *admission  // for a message that begins a session; nil for others
	followed  func() bool // reports whether something after the message was read, or nil
}

// nobody is the sender of a message that has not been read.
func nobody() *incoming {
	return &incoming{header: header{messageID: absent}, release: func() {}}
}

// close releases the sender's keys and frees the memory of the message. No other message
// uses its reader.
func (in *incoming) close() {
	in.body.settle()
	in.release()
	if in.body != nil {
		in.body.free()
	}
}

// closeUnless closes a message that no other code knows of yet, if the step that defers
// it panics.
func (in *incoming) closeUnless(returned *bool) {
	if !*returned {
		in.close()
	}
}

// A receiver is the side that reads a message.
type receiver struct {
	entities []EntityScheme
	rules    headerRules
	limits   *Limits
	account  *account                                         // of the message; nil counts nothing
	payer    func(ctx context.Context, identity string) payer // for the memory that account counts
	tokens   tokenReader
	watch    watcher

	slow      bool       // waits for a device with keys
	admission *admission // nil admits all messages immediately
}

// A tokenReader is the side that knows a message's tokens: their issuer or their holder.
type tokenReader interface {
	// findSession finds the session of a master token, or parses the token. It is called
	// while the outer part of a header is read.
	findSession(wire.Object) (*Session, *MasterToken, error)
	// openSession makes the session of a token that findSession only parsed.
	openSession(*MasterToken) (*Session, error)
	// openUser reads a user ID token of the message.
	openUser(*incoming, wire.Object) (*UserIDToken, error)
	// used is called with the session of a token that a message used.
	used(*MasterToken, *Session)
	// gone is called with a token whose session keys no longer exist.
	gone(*MasterToken)
}

// receive reads and checks the header of a message, up to the checks of its meaning. An
// incoming returned with an error names the sender if it is authenticated; the caller
// must call its release.
func (r *receiver) receive(ctx context.Context, decoder *wire.Decoder) (*incoming, error) {
	o, err := decoder.First()
	return r.read(ctx, o, err, decoder)
}

// read continues with the first object of a message, or with the error from reading it.
func (r *receiver) read(ctx context.Context, o wire.Object, err error, decoder *wire.Decoder) (*incoming, error) {
	in, returned := nobody(), false
	in.account, in.limits, in.watch = r.account, r.limits, r.watch
	defer in.closeUnless(&returned)
	if err = r.readHeader(ctx, in, o, err, decoder); err == nil {
		r.watch.received(in)
	}
	returned = true
	return in, err
}

func (r *receiver) readHeader(ctx context.Context, in *incoming, o wire.Object, err error, decoder *wire.Decoder) error {
	if err == io.EOF {
		return fail(ErrMSLParseError, "read message", fmt.Errorf("%w: %w", ErrNotMessage, io.EOF))
	}
	if errors.Is(err, wire.ErrTooLong) && !wire.Mentions(decoder, "entityauthdata", "mastertoken", "headerdata", "errordata", "signature") {
		return fail(ErrMSLParseError, "read message", ErrNotMessage) // other JSON, for which no limit is to be raised
	}
	if err != nil {
		return notMessage(streamError(err, "Header"), cutOff(err) || errors.Is(err, wire.ErrSyntax))
	}
	if err := in.account.hold(ctx, aHeader, len(o.Raw())); err != nil {
		return streamError(err, "Header")
	}
	if r.slow { // before the message takes a turn, or keys
		decoder.Await(earlySize)
	}
	env, err := parseEnvelope(o, r.entities, func(token wire.Object) (err error) {
		in.session, in.token, err = r.tokens.findSession(token)
		if in.session != nil {
			end := r.admission.begin()
			in.release = func() { in.session.Release(); end() }
		}
		return err
	})
	if err != nil {
		return notMessage(err, !o.Has("headerdata") && !o.Has("errordata"))
	}
	if in.session == nil {
		in.admission = r.admission
	}
	inside, first, err := r.identifyAndOpen(ctx, in, env, decoder)
	if err == nil && in.sender.Authenticated {
		err = r.prove(ctx, in.sender.Identity)
	}
	if err != nil {
		return err
	}
	if env.isError {
		in.err, in.timestamp, err = parseError(inside, in.sender.proven())
		return err
	}
	in.header, err = r.readInside(ctx, in, inside)
	if err != nil || in.header.refused() {
		err = withID(in.damageOr(ctx, err), in.header.messageID)
	}
	in.body = in.payload.begin(ctx, in, decoder, first)
	return err
}

// readInside reads the inside of a header. The device verifies the tokens in it, once the
// message is admitted.
func (r *receiver) readInside(ctx context.Context, in *incoming, inside wire.Object) (header, error) {
	if inside.Has("useridtoken") || inside.Has("servicetokens") || inside.Has("peerservicetokens") {
		leave, err := in.admittedToKeys(ctx)
		if err != nil {
			return header{messageID: absent}, err
		}
		defer leave()
	}
	return parseHeader(inside, r.rulesFor(in))
}

// identifyAndOpen finds the sender and opens the header, once the message is admitted.
func (r *receiver) identifyAndOpen(ctx context.Context, in *incoming, env envelope, decoder *wire.Decoder) (inside wire.Object, first *earlyChunk, err error) {
	leave, err := in.admitted(ctx, rankStranger)
	if err != nil {
		return inside, nil, err
	}
	defer leave()
	if err := r.identify(ctx, in, env); err != nil {
		return inside, nil, err
	}
	first = openEarly(decoder, in.sender.Opener)
	in.releaseAfter(first)
	inside, err = r.open(decoder.Memory(), in, env, first)
	return inside, first, err
}

// admitted waits until the next step of the message may run.
func (in *incoming) admitted(ctx context.Context, rank int) (leave func(), err error) {
	if in.admission == nil {
		return func() {}, nil
	}
	if leave, err = in.admission.take(ctx, in.account.whose(), rank); err != nil {
		return nil, fail(ErrInternalException, "admission", err)
	}
	return leave, nil
}

// admittedToKeys waits for admission to the key operations of the answer, once the
// message was read.
func (in *incoming) admittedToKeys(ctx context.Context) (leave func(), err error) {
	if in.sender.Authenticated {
		return in.admitted(ctx, rankProven)
	}
	return in.admitted(ctx, rankStranger)
}

// open verifies and decrypts the header, and records what this proves about its sender.
func (r *receiver) open(mem *wire.Memory, in *incoming, env envelope, first *earlyChunk) (wire.Object, error) {
	inside, err := env.open(mem, in.sender, r.limits.Depth, first)
	if err != nil {
		in.sender.Authenticated = false // it proved nothing
		if keysGone(err) {
			r.forgetKeys(in)
		}
		return inside, err
	}
	switch {
	case env.entity == nil:
		r.tokens.used(in.token, in.session)
	case in.sender.Proven != nil:
		in.sender.Proven()
	}
	return inside, nil
}

// forgetKeys makes the sender's next message open its keys again.
func (r *receiver) forgetKeys(in *incoming) {
	switch {
	case in.session != nil:
		r.tokens.gone(in.token)
	case in.sender.Gone != nil:
		in.sender.Gone()
	}
}

// releaseAfter keeps the sender's keys until they have opened the first chunk.
func (in *incoming) releaseAfter(first *earlyChunk) {
	if release := in.release; first != nil {
		in.release = func() {
			first.giveUp()
			first.take()
			release()
		}
	}
}

// prove counts the memory of the message as the sender's. That may take a while, during
// which the message takes no turn from others.
func (r *receiver) prove(ctx context.Context, identity string) error {
	if r.account == nil {
		return nil
	}
	if err := r.account.prove(ctx, r.payer(ctx, identity).name); err != nil {
		return streamError(err, "Header")
	}
	return nil
}

// rulesFor are the rules for the header of a message whose sender is known.
func (r *receiver) rulesFor(in *incoming) headerRules {
	rules := r.rules
	rules.token, rules.encrypted, rules.search = in.token, in.sender.Encrypted, everyVersion()
	if !in.sender.Authenticated {
		rules.search.others = strangersVersions
	}
	rules.openUser = func(o wire.Object) (*UserIDToken, error) { return r.tokens.openUser(in, o) }
	return rules
}

// inflation bounds a compressed part of the message.
func (in *incoming) inflation(ctx context.Context, what occupant) wire.Inflation {
	bounds := in.limits.inflation()
	bounds.Hold = func(size int) error { return in.account.hold(ctx, what, size) }
	return bounds
}

// inflateTokens decompresses the message's service tokens, together to no more than one
// chunk may have. Of equal ones it keeps the first.
func (in *incoming) inflateTokens(ctx context.Context) error {
	h := &in.header
	if len(h.serviceTokens)+len(h.peer.services) == 0 {
		return nil
	}
	used := 0
	bounds := in.limits.inflation()
	bounds.Hold = func(size int) error { return in.account.hold(ctx, someTokens, used+size) }
	for _, t := range slices.Concat(h.serviceTokens, h.peer.services) {
		if err := t.inflate(bounds); err != nil {
			return err
		}
		used += len(t.Data)
		bounds.Most = max(in.limits.Chunk-used, 1)
	}
	h.serviceTokens, h.peer.services = setOf(h.serviceTokens), setOf(h.peer.services)
	return nil
}

// damageOr returns err, unless a service token is damaged: that is found while the header is
// read, before err. A message of a sender without a right to it is not decompressed at all.
func (in *incoming) damageOr(ctx context.Context, err error) error {
	return cmp.Or(in.inflateTokens(ctx), err)
}

// ErrNotMessage says that the data is not an MSL message, or ends within the header.
var ErrNotMessage = errors.New("not an MSL message")

// noMessage reports whether a stream ended where a message could have begun. A bare
// io.EOF may come from anything used for the message, such as the state.
func noMessage(err error) bool { return errors.Is(err, ErrNotMessage) && errors.Is(err, io.EOF) }

// notMessage adds ErrNotMessage to the cause of an error if so.
func notMessage(err error, so bool) error {
	if !so {
		return err
	}
	e, cause := *fail(codeOf(err), "read message", err).(*Error), ErrNotMessage
	if e.Err != nil {
		cause = fmt.Errorf("%w: %w", ErrNotMessage, e.Err)
	}
	e.Err = cause
	return &e
}

// identify finds the sender of the message, and the keys that open it.
func (r *receiver) identify(ctx context.Context, in *incoming, env envelope) (err error) {
	if env.entity == nil {
		if in.session == nil {
			if in.session, err = r.tokens.openSession(in.token); err != nil {
				return err
			}
			in.release = in.session.Release
		}
		in.sender = Sender{Identity: in.session.Identity, Opener: in.session.key(), Encrypted: true, Authenticated: true}
		return nil
	}
	in.scheme = env.entity.scheme
	sender, release, err := env.scheme.Open(ctx, env.entity.data)
	if err != nil {
		return err
	}
	if err := checkName(sender.Identity); err != nil {
		release()
		return fail(ErrIncorrectEntityAuthData, "entity authentication data", err)
	}
	in.sender, in.release = sender, release
	return nil
}

// checkForm refuses a message that is marked as a handshake but asks for no keys, and an id
// that belongs to no master token.
func (in *incoming) checkForm() error {
	if in.handshake && in.unanswerable == nil && (!in.renewable || len(in.keyRequests) == 0) {
		return fail(ErrHandshakeDataMissing, "handshake", nil)
	}
	if in.nonReplayableID != absent && in.token == nil {
		return fail(ErrIncompleteNonReplayableMessage, "non-replayable message", nil)
	}
	return nil
}

// inferHandshake recognizes the handshake of a peer that does not mark it: a
// renewable message with key requests whose only chunk is empty. An error in the chunk
// is left to the application's read; only a failure of this side is returned.
func (in *incoming) inferHandshake() error {
	if in.handshake || !in.renewable || len(in.keyRequests) == 0 {
		return nil
	}
	if in.body.err = in.body.next(); in.body.err == nil {
		in.handshake = in.body.done.Load() && in.body.empty()
	}
	if internal(in.body.err) {
		return in.body.err
	}
	return nil
}
