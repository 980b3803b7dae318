package state

import (
	"cmp"
	"context"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"

	"github.com/msl-hsm/msl-hsm/msl"
)

// Tokens remembers how the tokens of a server were used, for as long as it matters:
// their largest non-replayable ids and their renewals.
type Tokens struct {
	records
	keeps keeps
	steps turnstile
}

// step makes a step of a token. In a store that several servers share, those of this server
// that come at the same time go together; a file joins the changes of transactions itself.
// There refusing must not cost a write, and so it is found out first.
func (t *Tokens) step(ctx context.Context, op string, s *tokenStep) error {
	if _, ok := t.store.(kv.Shared); ok {
		return wrap(op, t.steps.pass(ctx, t.store, s))
	}
	err := t.view(ctx, op, func(tx kv.Reader) error {
		old, err := tx.Get(s.table, s.key)
		if err == nil {
			_, err = s.next(old)
		}
		return err
	})
	if err != nil {
		return err
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
			_, err = renewed(payload, sequence)
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
		next, err := renewed(old, sequence)
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
func renewed(payload []byte, sequence int64) (s msl.Sequence, err error) {
	var was newestSequence
	if payload != nil {
		if was, err = decodeNewestSequence(payload); err != nil {
			return s, err
		}
	}
	return was.Renew(payload != nil, sequence)
}
