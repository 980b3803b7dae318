package state

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"

	"github.com/msl-hsm/msl-hsm/msl"
)

// Tokens remembers how a server's tokens were used, as long as that matters: their
// largest non-replayable ids and their renewals.
type Tokens struct {
	records
	keeps  keeps
	steps  turnstile
	behind behind
}

// behind reports once that the state is older than a token.
type behind struct {
	once sync.Once
	tell func(identity string) // or nil
}

// WhenBehind makes tell be called once if a token appears that was renewed more often
// than the state knows: then the state is an older copy, which has also lost which
// messages were accepted and who was revoked since then. Set it before the first token.
// Silence proves nothing: devices whose tokens were not renewed in the meantime show no
// difference.
func (t *Tokens) WhenBehind(tell func(identity string)) { t.behind.tell = tell }

// compare checks whether the state should know a token, but does not. The first number of
// a token is 0, and later ones are issued after they were recorded.
func (b *behind) compare(identity string, known bool, newest, sequence int64) {
	if b.tell != nil && (known && sequence > newest || !known && sequence > 0) {
		b.once.Do(func() { b.tell(identity) })
	}
}

// step performs a step of a token. In a store shared by several servers, concurrent steps
// of this server are combined; a file itself combines the changes of transactions, and one in
// which all are refused writes nothing.
func (t *Tokens) step(ctx context.Context, op string, s *tokenStep) error {
	if _, ok := t.store.(kv.Shared); ok {
		return wrap(op, t.steps.pass(ctx, t.store, s))
	}
	return t.update(ctx, op, func(tx kv.Tx) error {
		refused, err := s.make(tx)
		return cmp.Or(refused, err)
	})
}

// AcceptID implements msl.State.
func (t *Tokens) AcceptID(ctx context.Context, identity string, serial, id int64) error {
	key, err := pairKey(identity, serial)
	if err != nil {
		return err
	}
	return t.step(ctx, "accept id", &tokenStep{table: tableIDs, key: key, next: func(old []byte) ([]byte, error) {
		if err := judgeID(old, id); err != nil {
			return nil, err
		}
		return largestID{id, time.Now()}.encode(), nil
	}})
}

func judgeID(payload []byte, id int64) (err error) {
	var l largestID
	if payload != nil {
		if l, err = decodeLargestID(payload); err != nil {
			return err
		}
	}
	return msl.CheckNonReplayableID(l.id, id)
}

// Renewable implements msl.State.
func (t *Tokens) Renewable(ctx context.Context, identity string, serial, sequence int64) error {
	key, err := pairKey(identity, serial)
	if err != nil {
		return err
	}
	return t.view(ctx, "check sequence number", func(tx kv.Reader) error {
		payload, err := tx.Get(tableSequences, key)
		if err == nil {
			_, err = t.renewed(identity, payload, sequence)
		}
		return err
	})
}

// Renew implements msl.State.
func (t *Tokens) Renew(ctx context.Context, identity string, serial, sequence int64) (int64, error) {
	key, err := pairKey(identity, serial)
	if err != nil {
		return 0, err
	}
	s := &tokenStep{table: tableSequences, key: key, next: func(old []byte) ([]byte, error) {
		next, err := t.renewed(identity, old, sequence)
		if err != nil {
			return nil, err
		}
		return newestSequence{next, time.Now()}.encode(), nil
	}}
	if err := t.step(ctx, "renew", s); err != nil {
		return 0, err
	}
	made, err := decodeNewestSequence(s.made)
	return made.Newest, err
}

// renewed returns the record after a renewal.
func (t *Tokens) renewed(identity string, payload []byte, sequence int64) (s msl.Sequence, err error) {
	var was newestSequence
	if payload != nil {
		if was, err = decodeNewestSequence(payload); err != nil {
			return s, err
		}
	}
	t.behind.compare(identity, payload != nil, was.Newest, sequence)
	return was.Renew(payload != nil, sequence)
}
