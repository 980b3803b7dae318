package msl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// A Client sends messages in a trusted-services network. It is safe for
// concurrent use; its goroutines share its tokens, and at most one of their
// messages at a time asks for new ones. Its fields must not change after the
// first call of Do.
type Client struct {
	Local        LocalEntity    // this side's identity, and how it is proven
	Peers        []EntityScheme // how the peers that may answer are authenticated
	KeyExchanges []Offerer      // key exchanges to offer
	Transport    Transport
	State        ClientState // nil keeps the tokens in memory
	Custody      Custody     // what the key exchanges may see; zero means nothing

	// UserAuth returns the proof of a local user, before anything is sent. reason is the
	// response code that refused an earlier proof, or 0. Returning no data and no error
	// gives up.
	UserAuth func(ctx context.Context, user string, reason ResponseCode) (*UserAuthData, error)

	// EntityAuth returns how this side proves itself from now on, after an authenticated
	// answer refused it. reason is [EntityReauth] if the master token was refused, after
	// which the same entity may work, and [EntityDataReauth] if the data of Local was
	// refused. Returning no entity and no error gives up. A nil function tries the same
	// entity once more after EntityReauth, and gives up after EntityDataReauth. It is
	// called for one message at a time, and not again for messages refused in the
	// meantime. After a restart, Local is used again.
	EntityAuth func(ctx context.Context, refused LocalEntity, reason ResponseCode) (LocalEntity, error)

	ServiceTokens ServiceTokenKeys
	Capabilities  *Capabilities // nil means none, and no compression
	Limits        Limits
	Time          func() time.Time // nil means time.Now
	Rand          io.Reader        // used by several goroutines; nil means crypto/rand
	// Headers, if not nil, is called with the header of each message received or sent, by
	// several goroutines. It must not block.
	Headers func(HeaderInfo)

	asking     chan struct{} // holds an element while EntityAuth runs
	mu         sync.Mutex
	other      LocalEntity // in place of Local, or nil
	turned     int         // how often it was replaced
	departed   departed
	loaded     bool
	tokens     *tokens
	clockAhead time.Duration // by how much the server's clock is ahead
	clockKnown bool
	renewal    renewalLock
	numbers    *numbers // of the non-replayable messages under way
}

// A Transport carries one message to the peer and returns the answer. It calls
// write once, which may block until the peer reads.
type Transport interface {
	RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error)
}

// A Request is a message to be sent. A client has at most five non-replayable messages
// under way at a time, with ids at most four apart, since a peer refuses an id that
// arrives too late. A slow message therefore delays those after it. If that lasts five
// seconds, or if five in a row were lost, the next message asks for a new session.
type Request struct {
	Encrypted     bool
	Authenticated bool // integrity-protected
	NonReplayable bool
	RequestTokens bool   // the answer must bring a master token, and a user ID token
	User          string // local user, or empty; compared in the form of [CanonicalName]
	Recipient     string // identity of the entity that must answer; empty means any

	// Uncompressed sends the data and the new service tokens as they are, and asks the
	// peer for an answer that is not compressed either. Use it for a message that carries
	// a secret next to text that someone else can choose: the compressed length leaks
	// information about the secret (the CRIME and BREACH attacks).
	Uncompressed bool

	// Languages, if not nil, are the languages of the user for error texts, best first,
	// as BCP 47 tags. They replace the Languages of the client's Capabilities.
	Languages []string

	// ServiceTokens are sent with the data, not with a handshake. It is an error
	// to bind one to tokens that the client does not hold yet: get those with an
	// ordinary request first.
	ServiceTokens []TokenChange

	// Interactive sends data as soon as Body returns it, instead of in chunks of 64 KiB.
	// Use it for a channel, whose two directions are active at the same time. If tokens
	// are missing, a handshake comes first, and the request takes more than one message.
	Interactive bool

	// Body opens the application data, again each time the message is sent. Nil means
	// none.
	Body func() (io.ReadCloser, error)
}

// empty reports whether the request has no data.
func (r *Request) empty() (bool, error) {
	if r.Body == nil {
		return true, nil
	}
	body, err := r.Body()
	if err != nil {
		return false, err
	}
	defer body.Close()
	_, err = io.ReadFull(body, make([]byte, 1))
	if err == io.EOF {
		return true, nil
	}
	return false, err
}

// A Response is the answer. Its body must be closed.
type Response struct {
	Identity      string // of the peer, in the form of [CanonicalName]; empty if it answered under the client's master token
	Body          io.ReadCloser
	ServiceTokens []*ServiceToken
	MessageID     int64
	KeyExchange   string // scheme of the key exchange that this answer completed, or empty
	Messages      int    // sent and received for this request
}

// Do sends a request and returns the answer. It does whatever that takes: handshakes, key
// exchange, renewals, and retries after errors that ask for one. If the peer refuses, the
// error is a [*PeerError].
func (c *Client) Do(ctx context.Context, req *Request) (*Response, error) {
	return c.run(ctx, c.attempt(req))
}

// Send sends a message that expects no answer. Any handshake it needs is an exchange of
// its own, before it; the message itself never asks for tokens, whatever req says. A nil
// error means that the transport took the message, not that the peer accepted it: a
// refusal is not read.
func (c *Client) Send(ctx context.Context, req *Request) error {
	a := c.attempt(req.unanswered())
	a.purpose = oneWay
	_, err := c.run(ctx, a)
	return err
}

func (c *Client) attempt(req *Request) *attempt {
	if user := CanonicalName(req.User); user != req.User {
		named := *req
		named.User = user
		req = &named
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &attempt{
		client: c, req: req, limits: c.Limits.forClient(), network: trustedNetwork{}, watch: c.Headers, as: persona{client: c},
		lease: lease{client: c, user: req.User, began: c.departed.number},
	}
	a.as.become()
	return a
}

// unanswered returns the request without asking for tokens, which only answers bring.
func (r *Request) unanswered() *Request {
	q := *r
	q.RequestTokens = false
	return &q
}

// run sends messages until the request is answered.
func (c *Client) run(ctx context.Context, a *attempt) (*Response, error) {
	err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	if a.messageID, err = randomNumber(c.Rand); err != nil {
		return nil, err
	}
	var refused error
	for count := 2; count <= maxMessages; count += 2 {
		response, err := a.exchange(ctx)
		switch {
		case isAnswer(err, a.verdict):
			refused, a.remade = err, false
			if again, err := a.recover(ctx, a.verdict); !again || err != nil {
				return nil, errors.Join(refused, err)
			}
		case errors.Is(err, errSpent): // nothing was sent; the next try starts a new session
			count -= 2
		case err != nil:
			return nil, afterRefusal(a, refused, err)
		case response != nil:
			response.Messages = count
			return response, nil
		}
	}
	if refused == nil {
		refused = errUnanswered
	}
	return nil, refused
}

// errUnanswered says that the messages of an exchange were used up.
var errUnanswered = errors.New("msl: no answer within 12 messages")

// offers reports whether the client offers that key exchange scheme.
func (c *Client) offers(scheme string) bool {
	return slices.ContainsFunc(c.KeyExchanges, func(x Offerer) bool { return x.Scheme() == scheme && c.Custody.permits(x.Exposes()) })
}

// Close releases the session's keys. Messages in flight keep theirs.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens != nil && c.tokens.session != nil {
		c.tokens.session.keys.Release()
	}
	c.tokens, c.loaded = nil, false
	return nil
}

// load reads the tokens of an earlier process.
func (c *Client) load(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded {
		return nil
	}
	if c.State == nil {
		c.State = &memoryClientState{}
	}
	if c.numbers == nil {
		c.numbers, c.asking = newNumbers(), make(chan struct{}, 1)
	}
	r, err := c.State.Load(ctx)
	if err != nil {
		return fmt.Errorf("msl: load client state: %w", err)
	}
	if c.tokens, err = c.restore(ctx, r); err != nil {
		return fmt.Errorf("msl: restore session: %w", err)
	}
	c.clockAhead, c.clockKnown = time.Duration(r.ClockOffset)*time.Second, r.ClockKnown
	c.loaded = true
	return nil
}

func (c *Client) localTime() time.Time {
	if c.Time == nil {
		return time.Now()
	}
	return c.Time()
}

// snapshot returns the current tokens, with the session's keys held for the
// caller, and the estimate of the server's clock.
func (c *Client) snapshot() (t *tokens, now time.Time, known bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t = c.tokens
	if t == nil || t.session != nil && !t.session.keys.Acquire() {
		return nil, now, false, errClientClosed
	}
	return t, c.localTime().Add(c.clockAhead), c.clockKnown, nil
}

// errClientClosed says that the client was closed while a message was under way.
var errClientClosed = errors.New("msl: client is closed")

// holds reports whether t is still what the client holds.
func (c *Client) holds(t *tokens) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tokens == t
}

// serverTime is the estimate of the server's clock, and whether there is one.
func (c *Client) serverTime() (now time.Time, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.localTime().Add(c.clockAhead), c.clockKnown
}

// aheadOf is by how much the server's clock is ahead of a client's, as far as known.
func aheadOf(c *Client) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clockAhead
}

// master is the master token that the client holds, or nil.
func (c *Client) master() *MasterToken {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens == nil {
		return nil
	}
	return c.tokens.master()
}

// update durably replaces the tokens with the result of change. The keys of a
// master token that is dropped are released.
func (c *Client) update(ctx context.Context, change func(*tokens) *tokens) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens == nil {
		return errClientClosed
	}
	return c.change(ctx, change)
}

// change is update for a client that is locked and was loaded.
func (c *Client) change(ctx context.Context, change func(*tokens) *tokens) error {
	old := c.tokens
	if c.tokens = change(old); c.tokens == old {
		return nil
	}
	if old.session != nil && old.session != c.tokens.session {
		old.session.keys.Release()
	}
	return c.save(ctx)
}

func (c *Client) save(ctx context.Context) error {
	r := c.tokens.record()
	r.ClockOffset, r.ClockKnown = int64(c.clockAhead/time.Second), c.clockKnown
	if err := c.State.Save(ctx, r); err != nil {
		return fmt.Errorf("msl: save client state: %w", err)
	}
	return nil
}

// believeClock notes the server's clock from the timestamp of a message whose author is
// known. The client uses it to judge how long its tokens are valid.
func (c *Client) believeClock(in *incoming) {
	if in.timestamp == absent || !in.sender.Authenticated {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clockAhead, c.clockKnown = seconds(in.timestamp).Sub(c.localTime().Truncate(time.Second)), true
}
