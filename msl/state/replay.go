package state

import (
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
}

// AcceptID implements msl.State.
func (t *Tokens) AcceptID(ctx context.Context, identity string, serial, id int64) error {
	key, err := pairKey(identity, serial)
	if err != nil {
		return err
	}
	err = t.first(ctx, "check id", func(tx kv.Reader) error { return judgeID(tx, key, id) })
	if err != nil {
		return err
	}
	return t.update(ctx, "accept id", func(tx kv.Tx) error {
		if err := judgeID(tx, key, id); err != nil {
			return err
		}
		return tx.Put(tableIDs, key, largestID{id, time.Now()}.encode())
	})
}

func judgeID(tx kv.Reader, key []byte, id int64) error {
	payload, err := tx.Get(tableIDs, key)
	if err != nil {
		return err
	}
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
		_, err := renewed(tx, key, sequence)
		return err
	})
}

// Renew implements msl.State.
func (t *Tokens) Renew(ctx context.Context, identity string, serial, sequence int64) (int64, error) {
	key, err := pairKey(identity, serial)
	if err != nil {
		return 0, err
	}
	err = t.first(ctx, "check sequence number", func(tx kv.Reader) error {
		_, err := renewed(tx, key, sequence)
		return err
	})
	if err != nil {
		return 0, err
	}
	var newest int64
	err = t.update(ctx, "renew", func(tx kv.Tx) error {
		next, err := renewed(tx, key, sequence)
		if err != nil {
			return err
		}
		newest = next.Newest
		return tx.Put(tableSequences, key, newestSequence{next, time.Now()}.encode())
	})
	if err != nil {
		return 0, err
	}
	return newest, nil
}

// renewed returns the record after a renewal.
func renewed(tx kv.Reader, key []byte, sequence int64) (msl.Sequence, error) {
	payload, err := tx.Get(tableSequences, key)
	if err != nil {
		return msl.Sequence{}, err
	}
	var s newestSequence
	if payload != nil {
		if s, err = decodeNewestSequence(payload); err != nil {
			return msl.Sequence{}, err
		}
	}
	return s.Renew(payload != nil, sequence)
}
