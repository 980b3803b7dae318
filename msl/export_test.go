package msl

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// This file gives the tests access to the internals of the package. They are in package
// msl_test because the schemes that they need import this one.

// SkipWithRace skips a test in which one thing happens after the other: scripts/test
// runs it without the race detector, which would make it ten times as slow.
func SkipWithRace(t *testing.T) {
	t.Helper()
	if RaceDetector && os.Getenv("MSL_SOAK") == "" {
		t.Skip("it does one thing after the other: scripts/test runs it without the race detector")
	}
}

// A Received is what a server read of a message, its payload included.
type Received struct {
	MessageID, Timestamp, NonReplayableID int64 // or -1
	Renewable, Handshake, KeyResponse     bool
	Identity, User                        string
	ServiceTokens, KeyRequests            int
	Payload                               []byte
	Error                                 *PeerError
}

// Receive reads one message with every check on it.
func (s *Server) Receive(ctx context.Context, r io.Reader) (Received, error) {
	s.init()
	in, err := s.receive(ctx, nil, wire.NewDecoder(r, s.Limits.wire()))
	defer func() { in.release() }()
	if err != nil {
		return Received{}, err
	}
	if in.err != nil {
		return Received{Error: in.err, MessageID: in.err.MessageID, Timestamp: in.timestamp, Identity: in.sender.Identity}, nil
	}
	got := Received{
		MessageID: in.messageID, Timestamp: in.timestamp, NonReplayableID: in.nonReplayableID,
		Renewable: in.renewable, Handshake: in.handshake, KeyResponse: in.keyResponse != nil,
		Identity: in.sender.Identity, User: in.user,
		ServiceTokens: len(in.serviceTokens), KeyRequests: len(in.keyRequests),
	}
	if !in.handshake {
		got.Payload, err = io.ReadAll(in.body)
	}
	return got, err
}

// A Held is what a client holds.
type Held struct {
	MasterToken   *MasterToken
	Keys          *SessionKeys
	UserIDTokens  map[string]*UserIDToken
	ServiceTokens []*ServiceToken
}

// Held returns the client's tokens.
func (c *Client) Held() Held {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := Held{MasterToken: c.tokens.master(), UserIDTokens: c.tokens.users, ServiceTokens: c.tokens.services}
	if c.tokens.session != nil {
		h.Keys = c.tokens.session.keys
	}
	return h
}

// Hold gives the client a master token, as if a key exchange had ended with it.
func (c *Client) Hold(ctx context.Context, token []byte, keys *SessionKeys) error {
	if err := c.load(ctx); err != nil {
		return err
	}
	t, err := ParseMasterToken(token)
	if err != nil {
		return err
	}
	return c.update(ctx, func(old *tokens) *tokens { return old.withMaster(&holding{token: t, keys: keys}) })
}

// HoldUser gives the client a user ID token.
func (c *Client) HoldUser(ctx context.Context, user string, token []byte) error {
	t, err := ParseUserIDToken(token)
	if err != nil {
		return err
	}
	return c.update(ctx, func(old *tokens) *tokens { return old.withUser(user, t) })
}

// Answer reads an answer to a message with the id sent that offered every key
// exchange of the client.
func (c *Client) Answer(ctx context.Context, req *Request, sent int64, r io.ReadCloser) (*Response, error) {
	if err := c.load(ctx); err != nil {
		return nil, err
	}
	a := c.attempt(req)
	a.messageID = sent
	var err error
	if a.tokens, _, _, err = c.snapshot(); err != nil {
		return nil, err
	}
	defer func() { a.finish(nil) }()
	local, err := c.Local.Credentials(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.offer(ctx, &header{}, local.Identity); err != nil {
		return nil, err
	}
	in, err := a.receive(ctx, wire.NewDecoder(r, c.Limits.Effective().wire()))
	if err != nil {
		in.release()
		return nil, err
	}
	return a.response(in, r, in.release), nil
}

// ParseServiceToken reads an encoded service token.
func ParseServiceToken(b []byte, keys ServiceTokenKeys, mt *MasterToken, uit *UserIDToken) (*ServiceToken, error) {
	o, err := wire.Parse(b, wire.Limits{})
	if err != nil {
		return nil, err
	}
	token, err := parseServiceToken(o, keys, everyVersion(), mt, uit)
	if err == nil {
		err = token.inflate(Limits{}.Effective().inflation())
	}
	return token, err
}

// NewServiceToken makes an encoded service token.
func NewServiceToken(name string, data []byte, mt, uit int64, key Protector, compression string) ([]byte, error) {
	t, err := newServiceToken(TokenChange{Name: name, Data: data}, mt, uit, key, compression)
	if err != nil {
		return nil, err
	}
	return t.sealed.raw, nil
}

// An Envelope is a ciphertext envelope.
type Envelope struct {
	Version           int
	KeyID, CipherSpec string
	IV, Ciphertext    []byte
}

// ParseEnvelope reads a ciphertext envelope.
func ParseEnvelope(b []byte) (Envelope, error) {
	e, err := parseCiphertextEnvelope(new(wire.Memory), b, wire.Limits{})
	return Envelope{e.version, e.keyID, e.cipherSpec, e.iv, e.ciphertext}, err
}

// Encode writes a ciphertext envelope.
func (e Envelope) Encode() []byte {
	return ciphertextEnvelope{e.Version, e.KeyID, e.CipherSpec, e.IV, e.Ciphertext}.append(nil)
}

// BareSignature reads a signature envelope.
func BareSignature(b []byte) []byte { return bareSignature(b, wire.Limits{}) }

// ParseCapabilities reads encoded capabilities.
func ParseCapabilities(b []byte) (*Capabilities, error) {
	o, err := wire.Parse(b, wire.Limits{})
	if err != nil {
		return nil, err
	}
	return parseCapabilities(o)
}

// Encode writes an object whose only member is the capabilities.
func (c *Capabilities) Encode() []byte {
	e := wire.NewEncoder(0)
	e.Begin()
	c.encode(e)
	e.End()
	return e.Encoded()
}

// ReadHeader parses the inside of a header, ReadError that of an error and
// ReadChunk that of a payload chunk.
func ReadHeader(b []byte, users []UserScheme, exchanges []Responder) (id int64, err error) {
	o, err := wire.Parse(b, wire.Limits{})
	if err != nil {
		return -1, fail(ErrMSLParseError, "inside", err)
	}
	h, err := parseHeader(o, headerRules{encrypted: true, users: users, exchanges: exchanges, tokens: 64, delivers: func(string) bool { return true }, openUser: parseUserIDToken})
	return h.messageID, err
}

// ReadError parses the inside of an error header.
func ReadError(b []byte) (*PeerError, error) {
	o, err := wire.Parse(b, wire.Limits{})
	if err != nil {
		return nil, fail(ErrMSLParseError, "inside", err)
	}
	e, _, err := parseError(o, "peer")
	return e, err
}

// ReadChunk parses the inside of a payload chunk.
func ReadChunk(b []byte) (data []byte, err error) {
	o, err := wire.Parse(b, wire.Limits{})
	if err != nil {
		return nil, fail(ErrMSLParseError, "inside", err)
	}
	c, err := parseChunk(o)
	if err != nil {
		return nil, err
	}
	limits := Limits{}.Effective()
	source := chunkSource{message: &incoming{limits: &limits}, reading: context.Background()}
	r := &payloadReader{chunkSource: source, messageID: c.messageID, sequence: c.sequence - 1}
	if err := r.accept(c); err != nil || len(c.data) == 0 {
		return nil, err
	}
	err = r.more()
	return r.data, err
}

// IsSignatureError reports whether err is an Opener's error for a wrong signature.
func IsSignatureError(err error) bool { return err == errSignature }

// Remembered returns how many sessions the server has cached.
func (s *Server) Remembered() int {
	s.init()
	return s.sessions.cache.Len()
}

// ClockAhead is how far the client believes the server's clock to be ahead.
func (c *Client) ClockAhead() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clockAhead
}

// InUse is the memory that messages occupy at the moment.
func (s *Server) InUse() (unproven, proven int64) {
	for n, b := range map[*int64]*budget{&unproven: s.memory.unproven, &proven: s.memory.proven} {
		b.mu.Lock()
		*n = b.used
		b.mu.Unlock()
	}
	return unproven, proven
}

// UseUpMemory has others use all memory for authenticated senders, until free is called.
func (s *Server) UseUpMemory() (free func()) {
	s.init()
	b := s.memory.proven
	add := func(n int64) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.used += n
	}
	add(b.total)
	return func() { add(-b.total) }
}

// TakeTurns lets steps of messages that begin a session run only one after the other.
func (s *Server) TakeTurns() {
	s.init()
	s.admission.room = func() int { return 1 }
}

// UnderWay is how many messages of established sessions, and steps of others, there are.
func (s *Server) UnderWay() (established, steps int) {
	s.init()
	s.admission.mu.Lock()
	defer s.admission.mu.Unlock()
	return s.admission.established.now, s.admission.running
}

// Establish counts a message of an established session, until end is called.
func (s *Server) Establish() (end func()) {
	s.init()
	return s.admission.begin()
}

// ChangedToken makes the encoded service token of a change, bound to nothing.
func ChangedToken(c TokenChange, key Protector) ([]byte, error) {
	t, err := newServiceToken(c, Unbound, Unbound, key, "")
	if err != nil {
		return nil, err
	}
	return t.sealed.raw, nil
}

// SealIn encrypts and signs.
func SealIn(p Protector, plaintext []byte) (data, signature []byte, err error) {
	return sealIn(new(wire.Memory), p, plaintext)
}
