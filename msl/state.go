package msl

import (
	"context"
	"time"
)

// A State is what a server must not forget (package msl/state/bolt keeps it in a
// file). Every method is one atomic, durable step; what it decides is decided
// for all servers that share the state.
type State interface {
	// Revoked answers whether the entity, or the user of it if one is named,
	// is revoked: nil, [ErrMasterTokenIdentityRevoked] or
	// [ErrUserIDTokenRevoked].
	Revoked(ctx context.Context, identity, user string) error
	// AcceptID judges a non-replayable id against the largest one of the same
	// entity and serial number, by [CheckNonReplayableID], and records it.
	AcceptID(ctx context.Context, identity string, serial, id int64) error
	// Renewable answers whether a master token may be renewed, by
	// [Sequence.Renew]: nil or [ErrMasterTokenSequenceNumberOutOfSync].
	Renewable(ctx context.Context, identity string, serial, sequence int64) error
	// Renew records a renewal and returns the new token's sequence number.
	Renew(ctx context.Context, identity string, serial, sequence int64) (int64, error)
}

// TokenDates is what a [State] may know besides: since when the tokens of a name
// count. A name that was given up and comes back, or whose password was changed,
// begins anew.
type TokenDates interface {
	// CountSince returns the times before which no token of the entity, and no
	// token of the user if one is named, counts. The zero time is none.
	CountSince(ctx context.Context, identity, user string) (entity, ofUser time.Time, err error)
}

// A Forgetter is a [State] that forgets, in time, what it recorded of a token.
type Forgetter interface {
	// Expect tells until when a token will be accepted, before anything is
	// recorded of it: what is recorded from now on is kept for that long.
	Expect(ctx context.Context, until time.Time) error
}

// replayWindow is how far ahead of the largest accepted one a non-replayable id
// may be; lateWindow how far behind it one is recoverable: half the number of
// messages of an exchange.
const (
	replayWindow = 65536
	lateWindow   = maxMessages / 2
)

// CheckNonReplayableID judges an id against the largest one that was accepted
// before, 0 at the start: nil means accept and record it. [ErrMessageReplayed]
// asks the sender for a new id, [ErrMessageReplayedUnrecoverable] for a new
// master token.
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
// number, and the one which that renewal was asked with: a client that lost the
// answer asks with it again.
type Sequence struct {
	Newest int64
	Asked  int64
}

// Renew returns the record after a renewal that was asked with sequence. known
// tells whether there was a record before.
func (s Sequence) Renew(known bool, sequence int64) (Sequence, error) {
	if !known {
		return Sequence{Newest: next(sequence), Asked: sequence}, nil
	}
	if sequence != s.Newest && sequence != s.Asked {
		return s, ErrMasterTokenSequenceNumberOutOfSync
	}
	return Sequence{Newest: next(s.Newest), Asked: sequence}, nil
}

// A ClientState is what a client must not forget: tokens, what resumes its
// session, and its counters. It is used by one client at a time.
type ClientState interface {
	// Load returns what Save kept, or the zero record.
	Load(ctx context.Context) (ClientRecord, error)
	// Save replaces the record in one atomic, durable step.
	Save(ctx context.Context, r ClientRecord) error
	// NextID returns 1, 2, 3 … for a serial number: the next non-replayable id,
	// durably counted before it is returned. After 2^53 comes 0.
	NextID(ctx context.Context, serial int64) (int64, error)
}

// A ClientRecord is the tokens of a client, each as it came.
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

// NextNonReplayableID is the id after id: a ClientState counts with it.
func NextNonReplayableID(id int64) int64 { return next(id) }
