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

// pruneAtATime bounds how long pruning keeps other writers waiting.
const pruneAtATime = 1000

// Prune forgets the non-replayable ids and sequence numbers of master tokens
// that were neither renewed nor used with a non-replayable id since olderThan,
// and returns of how many tokens. What is forgotten is accepted again: olderThan
// must be further back than the oldest token that is still accepted or renewed.
func (s *Server) Prune(olderThan time.Time) (int, error) {
	total := 0
	for _, bucket := range []string{bucketIDs, bucketSequences} {
		for from, more := []byte(nil), true; more; more = from != nil {
			keys, next, err := s.untouched(bucket, from, olderThan)
			if err != nil {
				return total, err
			}
			n, err := s.forget(keys, olderThan)
			if err != nil {
				return total, err
			}
			total += n
			from = next
		}
	}
	return total, nil
}

// untouched looks for keys to forget, from one on, and returns where to go on:
// nil at the end.
func (s *Server) untouched(bucket string, from []byte, olderThan time.Time) (keys [][]byte, next []byte, err error) {
	err = s.view("look for old records", func(tx *bbolt.Tx) error {
		c := tx.Bucket([]byte(bucket)).Cursor()
		for k, _ := c.Seek(from); k != nil; k, _ = c.Next() {
			if len(keys) == pruneAtATime {
				next = append([]byte(nil), k...)
				return nil
			}
			last, err := touched(tx, k)
			if err != nil {
				return err
			}
			if last.Before(olderThan) {
				keys = append(keys, append([]byte(nil), k...))
			}
		}
		return nil
	})
	return keys, next, err
}

// forget removes the records of keys, unless one was touched meanwhile.
func (s *Server) forget(keys [][]byte, olderThan time.Time) (n int, err error) {
	if len(keys) == 0 {
		return 0, nil
	}
	err = s.update("remove old records", func(tx *bbolt.Tx) error {
		for _, k := range keys {
			last, err := touched(tx, k)
			if err != nil {
				return err
			}
			if !last.Before(olderThan) {
				continue
			}
			if err := remove(tx, bucketIDs, k); err != nil {
				return err
			}
			if err := remove(tx, bucketSequences, k); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// touched tells when anything was last recorded of a token. A token that is
// renewed lives on under its serial number, and so must its ids.
func touched(tx *bbolt.Tx, key []byte) (time.Time, error) {
	var last time.Time
	if payload, err := get(tx, bucketIDs, key); err != nil {
		return last, err
	} else if payload != nil {
		l, err := decodeLargestID(payload)
		if err != nil {
			return last, err
		}
		last = l.touched
	}
	if payload, err := get(tx, bucketSequences, key); err != nil {
		return last, err
	} else if payload != nil {
		q, err := decodeNewestSequence(payload)
		if err != nil {
			return last, err
		}
		if q.touched.After(last) {
			last = q.touched
		}
	}
	return last, nil
}
