package msl

import (
	"context"
	"time"
)

// A State stores what a server must not forget (package msl/state/bolt keeps it in a
// file). Every method is one atomic, durable step, and its decisions hold for all servers
// that share the state. Names are passed as they were sent: compare them in the form of
// [CanonicalName].
type State interface {
	// Revoked returns nil, or [ErrMasterTokenIdentityRevoked] or
	// [ErrUserIDTokenRevoked] if the entity or, if one is named, its user is
	// revoked.
	Revoked(ctx context.Context, identity, user string) error
	// AcceptID compares a non-replayable id with the largest one of the same
	// entity and serial number, by [CheckNonReplayableID], and records it.
	AcceptID(ctx context.Context, identity string, serial, id int64) error
	// Renewable returns nil if a master token may be renewed, by
	// [Sequence.Renew], and otherwise [ErrMasterTokenSequenceNumberOutOfSync].
	Renewable(ctx context.Context, identity string, serial, sequence int64) error
	// Renew records a renewal and returns the new token's sequence number.
	Renew(ctx context.Context, identity string, serial, sequence int64) (int64, error)
}

// TokenDates is a [State] that also knows from what time on the tokens of a name count.
// Earlier tokens no longer count once a removed name is registered again, or a password
// is changed.
type TokenDates interface {
	// CountSince returns two times: tokens of the entity, or of the user if one is named,
	// that were issued earlier do not count. The zero time sets no limit.
	CountSince(ctx context.Context, identity, user string) (entity, ofUser time.Time, err error)
}

// A Forgetter is a [State] that eventually forgets what it recorded about a
// token.
type Forgetter interface {
	// Expect announces until when a token will be accepted, before anything is recorded
	// about it. Later records are kept for that long.
	Expect(ctx context.Context, until time.Time) error
}

// replayWindow is how far ahead of the largest accepted id a non-replayable id may be;
// lateWindow how far behind it one is recoverable: half the number of messages of an
// exchange.
const (
	replayWindow = 65536
	lateWindow   = maxMessages / 2
)

// CheckNonReplayableID compares an id with the largest one accepted before, 0 at the start.
// Nil means accept and record it. [ErrNonReplayableIDOutOfRange] refuses an id outside of 0
// to 2^53. [ErrMessageReplayed] asks the sender for a new id,
// [ErrMessageReplayedUnrecoverable] for a new master token.
func CheckNonReplayableID(largest, id int64) error {
	switch {
	case !inRange(id):
		return ErrNonReplayableIDOutOfRange
	case id <= largest && id > largest-lateWindow:
		return ErrMessageReplayed
	case id > largest+replayWindow:
		return ErrMessageReplayedUnrecoverable
	case id <= largest && id >= largest-maxNumber+replayWindow:
		return ErrMessageReplayedUnrecoverable
	}
	return nil
}

// A Sequence is the newest sequence number that an issuer gave under a serial
// number. Asked is the number in the request for that renewal. A client that lost the
// answer repeats the request, and somebody may send copies of it, so the client may hold
// Asked, or any number that answered the request. Skipped is how many of the numbers that
// follow Asked did not: they answered the request before it.
type Sequence struct {
	Newest  int64
	Asked   int64
	Skipped int64
}

// Renew returns the record after a renewal that was requested with the given sequence
// number. known says whether a record existed before. A number that shows that its client got
// the answer to a request makes that request and its other answers useless: of two devices
// with one token, only the one that renews it again first keeps the session.
func (s Sequence) Renew(known bool, sequence int64) (Sequence, error) {
	if !known {
		return Sequence{Newest: next(sequence), Asked: sequence}, nil
	}
	switch n := after(s.Asked, sequence); {
	case n == 0:
		s.Newest = next(s.Newest)
		return s, nil
	case n <= s.Skipped || n > after(s.Asked, s.Newest):
		return s, ErrMasterTokenSequenceNumberOutOfSync
	}
	return Sequence{Newest: next(s.Newest), Asked: sequence, Skipped: after(sequence, s.Newest)}, nil
}

// after returns how many renewals come after number a until number b; 0 follows 2^53.
func after(a, b int64) int64 { return (b - a + maxNumber + 1) % (maxNumber + 1) }

// A ClientState stores what a client must not forget: its tokens, the data that resumes
// its session, and its counters. It is used by one client at a time.
type ClientState interface {
	// Load returns the record last saved, or the zero record.
	Load(ctx context.Context) (ClientRecord, error)
	// Save replaces the record in one atomic, durable step.
	Save(ctx context.Context, r ClientRecord) error
	// NextID returns 1, 2, 3 … for a serial number: the next non-replayable id,
	// durably counted before it is returned. After 2^53 comes 0.
	NextID(ctx context.Context, serial int64) (int64, error)
}

// A ClientRecord holds a client's tokens in the form in which they were received.
type ClientRecord struct {
	MasterToken   []byte            `json:"mastertoken,omitempty"`
	KeyExchange   string            `json:"keyexchange,omitempty"` // scheme that Keep is for
	Keep          []byte            `json:"keep,omitempty"`
	UserIDTokens  map[string][]byte `json:"useridtokens,omitempty"` // by local user
	ServiceTokens [][]byte          `json:"servicetokens,omitempty"`
	ClockOffset   int64             `json:"clockoffset,omitempty"` // seconds the server is ahead
	ClockKnown    bool              `json:"clockknown,omitempty"`
	Anchor        []byte            `json:"anchor,omitempty"` // of package msl/state/anchor
}

// NextNonReplayableID returns the id that follows id. A ClientState uses it to
// count.
func NextNonReplayableID(id int64) int64 { return next(id) }
