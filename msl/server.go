package msl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A Server answers messages in a trusted-services network, whose services issue
// all tokens. Its fields must not change after the first call of Serve.
type Server struct {
	Name         string         // own identity, sent in answers under a master token
	Local        LocalEntity    // this side's identity, and how it proves itself
	Peers        []EntityScheme // how the senders are authenticated
	Users        []UserScheme
	KeyExchanges []Responder // in order of preference
	Custody      Custody     // what the key exchanges may see, and the form of master tokens
	Issuer       *Issuer
	State        State
	// CountSince returns from what time on the master tokens of an entity count, in addition
	// to what State says if it is a [TokenDates]: for the zero time and a nil CountSince,
	// always. An error means that it could not be determined, and the peer is asked to send
	// the message again later. The identity is in the form of [CanonicalName].
	CountSince func(ctx context.Context, identity string) (time.Time, error)

	// PermitUser reports whether a user may log in at an entity by a scheme. It is called
	// twice: without a user, before its proof is looked at
	// ([ErrUserAuthEntityIncorrectData]), and with the authenticated user
	// ([ErrUserAuthEntityUserIncorrectData]). Nil permits all. A user with a user ID
	// token needs no proof, and so is not judged. Names are in the form of
	// [CanonicalName].
	PermitUser func(ctx context.Context, identity, user, scheme string) (bool, error)

	// Directory says which key exchange and user schemes an entity may use. Nil permits
	// all configured ones.
	Directory     Directory
	ServiceTokens ServiceTokenKeys
	Capabilities  *Capabilities // nil means none, and no compression
	Messages      UserMessages  // sent with errors, for the users of peers; nil means none
	Limits        Limits
	Log           *slog.Logger // of refused messages; nil means none
	// Headers, if not nil, is called with the header of each message received or sent, by
	// several goroutines. It must not block.
	Headers func(HeaderInfo)
	// Report, if not nil, is called with each message when the server has finished with
	// it, by several goroutines. It must not block.
	Report func(context.Context, Served)
	// Tracer, if not nil, gets a span for each message, with child spans for steps in the
	// state. They contain no name, secret or data. The handler's context carries the
	// span, so that the handler's calls can be traced, too.
	Tracer trace.Tracer

	once      sync.Once
	exchanges []Responder              // those the custody allows
	delivers  func(scheme string) bool // whether some exchange has this scheme
	sessions  *sessions
	answers   *answerLimiter // to unauthenticated senders, by source
	proven    *answerLimiter // refusals of authenticated senders, by entity
	turns     *turns         // of users to authenticate
	guesses   *throttle      // of their secrets
	memory    memory
	admission *admission // of messages that begin a session
}

// ErrNoAnswer says that no MSL answer can be made: the limit on signed answers is
// reached, or the server's own entity key is not available. Over HTTP it is a 503 without
// a body.
var ErrNoAnswer = errors.New("msl: no answer can be made now, try again later")

// ErrAnswerLost says that the application has acted on a message, but a failure of this
// side prevents sending its answer and an MSL error; or that the answer failed after it
// had begun. Over HTTP it is a 500 without a body and without Retry-After: if the message
// is sent again, the application acts on it again.
var ErrAnswerLost = errors.New("msl: the application ran, and its answer cannot be sent")

// A handler rejects a message by returning one of these. The code that the peer
// gets depends on whether it used a token.
var (
	ErrRejectEntity = errors.New("msl: application rejects the entity")
	ErrRejectUser   = errors.New("msl: application rejects the user")
)

// A handler returns ErrNoReply for a message that expects no answer: nothing is
// sent.
var ErrNoReply = errors.New("msl: application does not reply")

// A Handler is the application: it reads m.Body and writes the answer to w. If it returns
// an error before anything was sent, the peer gets an MSL error: an [*AppError] as it is,
// else the [Code] in the error, or [ErrInternalException]. The Code in a [*PeerError]
// does not count, so that the application can call other servers. A handler runs only
// after everything that the answer needs has been made, and so not at all while the key
// store fails. One exception: if the device with a session's keys is slow and has just
// opened the request with them, the answer's header is made while the handler runs. An
// answer that in the end cannot be protected, after three seconds of trying, becomes
// [ErrMSLEncodeError]: the peer is not asked to send the message again.
type Handler func(ctx context.Context, w *ResponseWriter, m *Message) error

// A Message is a message whose header passed every check, as a handler gets it.
type Message struct {
	Identity      string // of the entity, in the form of [CanonicalName]
	Scheme        string // its entity scheme, or empty if it used a master token
	User          string // name of the authenticated user, or empty
	Encrypted     bool
	Authenticated bool // integrity-protected, and from Identity
	NonReplayable bool // has an accepted non-replayable id
	MessageID     int64
	Timestamp     time.Time // of the sender's clock, or zero
	Languages     []string  // for messages to the user, best first
	ServiceTokens []*ServiceToken
	Note          any       // for the application's use in [Server].Report; initially nil
	Body          io.Reader // application data; ErrTruncated if it ends too early; Ended() reports whether all of it arrived
}

func (s *Server) init() {
	s.once.Do(func() {
		s.Limits = s.Limits.Effective()
		s.exchanges = permitted(s.Custody, s.KeyExchanges)
		s.delivers = func(scheme string) bool {
			return slices.ContainsFunc(s.exchanges, func(x Responder) bool { return x.Scheme() == scheme })
		}
		s.sessions = newSessions(s.Issuer, s.Custody == CustodyShared, s.Limits.Sessions)
		s.answers = newAnswerLimiter(s.Limits.ErrorsPerSecond, s.Limits.ErrorsPerSource)
		s.proven = newAnswerLimiter(s.Limits.ErrorsPerSecond, s.Limits.ErrorsPerSource)
		s.turns = newTurns(s.Limits.PasswordsAtATime)
		s.guesses = newThrottle(s.Issuer.now)
		s.memory = newMemory(s.Limits)
		s.admission = newAdmission(func() int { return roomFor(s.Issuer) })
	})
}

// Close forgets the remembered sessions, unless [Server.Continue] gave them to another server.
// Messages in flight keep theirs.
func (s *Server) Close() error {
	s.init()
	s.sessions.close()
	return nil
}

// Serve reads one message from r and writes the answer to w. source names where the message
// came from, for the limits on each source. The error is nil if an answer was written, even
// an MSL error. A message whose payload is cut off is [ErrTruncated] and not answered. If w
// has a method Finish, it is called when the answer is complete, and Serve returns its
// error. While devices with a session keep the server busy, Serve returns late if it could
// not authenticate the sender, even if ctx has ended.
func (s *Server) Serve(ctx context.Context, source string, r io.Reader, w io.Writer, handle Handler) error {
	s.init()
	began := time.Now()
	proven, err := s.serveAlone(ctx, source, r, w, handle)
	if !proven {
		s.admission.linger(time.Since(began))
	}
	return err
}

// serveAlone is Serve, and reports whether the message was accepted or its sender
// authenticated.
func (s *Server) serveAlone(ctx context.Context, source string, r io.Reader, w io.Writer, handle Handler) (proven bool, err error) {
	a := s.memory.open(source, r)
	defer a.close()
	err = s.serve(ctx, source, a, r, w, handle)
	return !a.refused, err
}

// serve is Serve for a message whose memory is counted.
func (s *Server) serve(ctx context.Context, source string, a *account, r io.Reader, w io.Writer, handle Handler) error {
	ctx, span := beginSpan(ctx, s.Tracer)
	a.movement.first()
	in, err := s.receive(ctx, a, a.decoder(ctx, r, s.Limits, anObject))
	defer func() { in.close() }()
	in.end.source, in.end.span, a.refused = source, span, err != nil && !in.sender.Authenticated
	if err = respond(ctx, s, source, a, in, err, w, handle); err == nil {
		err = finish(w)
	}
	in.tell(ctx, s, a, err)
	return err
}

// respond answers a message that was received, or refused because of refusal.
func respond(ctx context.Context, s *Server, source string, a *account, in *incoming, refusal error, w io.Writer, handle Handler) error {
	err := refusal
	if err == nil && in.err != nil {
		return in.err // an error is never answered
	}
	if err != nil {
		return s.refuse(ctx, source, w, in, err)
	}
	if !in.sender.Authenticated && !s.answers.allow(source) {
		return ErrNoAnswer
	}
	out := s.answer(ctx, in, outlet{w, &a.movement})
	defer out.release()
	err = out.answer(handle)
	in.end.issued = out.gives.issuedVersion()
	switch in.end.exchange = out.gives.exchange(); {
	case err == nil:
		return out.afterward()
	case out.brokeOff(err): // nothing follows a message that broke off
		return err
	case out.begun():
		return fmt.Errorf("%w: %w", ErrAnswerLost, err)
	case errors.Is(err, ErrNoReply):
		return nil
	}
	return s.refuse(ctx, source, w, in, in.applicationError(err, out.failed))
}

func (s *Server) answer(ctx context.Context, in *incoming, out io.Writer) *ResponseWriter {
	w := &ResponseWriter{ctx: ctx, in: in, payload: payloadWriter{out: out}}
	w.gives = issuance{ctx: ctx, server: s, in: in}
	w.network = &trustedReply{ResponseWriter: w}
	return w
}

// receive reads a message and checks it completely.
func (s *Server) receive(ctx context.Context, a *account, r *wire.Decoder) (*incoming, error) {
	side := s.receiver()
	side.account = a
	in, err := side.receive(ctx, r)
	if err != nil || in.err != nil {
		return in, err
	}
	returned := false
	defer in.closeUnless(&returned)
	err = s.accept(ctx, in)
	returned = true
	return in, withID(err, in.messageID)
}

// receiver reads messages under the tokens that this side issues.
func (s *Server) receiver() *receiver {
	return &receiver{
		entities: s.Peers,
		limits:   &s.Limits,
		rules: headerRules{
			tokens: s.Limits.Tokens, serviceTokens: s.ServiceTokens, users: s.Users, exchanges: s.exchanges, delivers: s.delivers,
		},
		tokens: s.sessions,
		payer:  s.payer,
		watch:  s.Headers,

		slow:      s.Issuer.isSlow(),
		admission: s.admission,
	}
}

// entity looks up an entity in the directory. An unlisted one has no restrictions of its
// own.
func (s *Server) entity(ctx context.Context, identity string) (*Entity, error) {
	if s.Directory == nil {
		return nil, nil
	}
	entity, err := s.Directory.Entity(ctx, identity)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fail(ErrInternalException, "entity directory", err)
	}
	return entity, nil
}

func isPermitted(list []string, scheme string) bool {
	return list == nil || slices.Contains(list, scheme)
}
