package bolt

import (
	"context"
	"time"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/msl"
)

// AcceptID implements msl.State.
func (s *Server) AcceptID(ctx context.Context, identity string, serial, id int64) error {
	key, err := pairKey(identity, serial)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// A look first: refusing what was replayed must not cost a write.
	err = s.view("check id", func(tx *bbolt.Tx) error { return judgeID(tx, key, id) })
	if err != nil {
		return err
	}
	return wrap("accept id", s.writes.do(func(tx *bbolt.Tx) error {
		if err := judgeID(tx, key, id); err != nil {
			return err
		}
		return put(tx, bucketIDs, key, largestID{id, time.Now()}.encode())
	}))
}

func judgeID(tx *bbolt.Tx, key []byte, id int64) error {
	payload, err := get(tx, bucketIDs, key)
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
func (s *Server) Renewable(ctx context.Context, identity string, serial, sequence int64) error {
	key, err := pairKey(identity, serial)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.view("check sequence number", func(tx *bbolt.Tx) error {
		_, err := renewed(tx, key, sequence)
		return err
	})
}

// Renew implements msl.State.
func (s *Server) Renew(ctx context.Context, identity string, serial, sequence int64) (int64, error) {
	if err := s.Renewable(ctx, identity, serial, sequence); err != nil {
		return 0, err
	}
	key, err := pairKey(identity, serial)
	if err != nil {
		return 0, err
	}
	var newest int64
	err = s.writes.do(func(tx *bbolt.Tx) error {
		next, err := renewed(tx, key, sequence)
		if err != nil {
			return err
		}
		newest = next.Newest
		return put(tx, bucketSequences, key, newestSequence{next, time.Now()}.encode())
	})
	if err != nil {
		return 0, wrap("renew", err)
	}
	return newest, nil
}

// renewed returns what the record becomes by a renewal.
func renewed(tx *bbolt.Tx, key []byte, sequence int64) (msl.Sequence, error) {
	payload, err := get(tx, bucketSequences, key)
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
