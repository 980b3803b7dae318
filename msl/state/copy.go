package state

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// importKey is in the settings while a copy is not complete.
const importKey = "importing"

// errUnfinished: a copy was begun and not completed.
var errUnfinished = fmt.Errorf("%w: it was not copied completely: copy it again", ErrDamaged)

// Each calls fn for every record of one moment, by table and in the order of keys. fn must
// not retain what it gets. If the records of that moment get lost meanwhile, since the store
// only keeps them for a while, the error is one, and everything has to be read again.
func (s *Server) Each(ctx context.Context, fn func(table string, p kv.Pair) error) error {
	return eachRecord(ctx, s.store, fn)
}

func eachRecord(ctx context.Context, store kv.Store, fn func(table string, p kv.Pair) error) error {
	began := false
	return records{store}.view(ctx, "read all", func(tx kv.Reader) error {
		if began {
			return errors.New("the store no longer has the snapshot that was being read: try again")
		}
		began = true
		if err := eachSetting(tx, fn); err != nil {
			return err
		}
		for _, table := range ServerTables() {
			for p, err := range kv.All(tx, table, nil, nil) {
				if err != nil {
					return err
				}
				if err := fn(table, p); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// eachSetting calls fn for the settings that make up a state. Others are of its store, or of
// a backup.
func eachSetting(tx kv.Reader, fn func(table string, p kv.Pair) error) error {
	for _, key := range []string{beganKey, keepKey} {
		value, err := tx.Get(kv.Settings, []byte(key))
		if err == nil && value != nil {
			err = fn(kv.Settings, kv.Pair{Key: []byte(key), Value: value})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A Digest tells whether two states are equal.
type Digest struct {
	Records int
	sum     [sha256.Size]byte
}

// Digest reads every record.
func (s *Server) Digest(ctx context.Context) (Digest, error) { return DigestOf(ctx, s.store) }

// DigestOf is the digest of the state in a store, which may be a copy that is not finished.
func DigestOf(ctx context.Context, store kv.Store) (d Digest, err error) {
	h := sha256.New()
	err = eachRecord(ctx, store, func(table string, p kv.Pair) error {
		d.Records++
		for _, part := range [][]byte{[]byte(table), p.Key, p.Value} {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			h.Write(part)
		}
		return nil
	})
	h.Sum(d.sum[:0])
	return d, err
}

// CopyTo writes every record of a state into a store that has none, or those of an earlier
// copy that was not completed. The store is not opened as a state before [FinishCopy].
// progress is called with the number of records so far, and may be nil.
func (s *Server) CopyTo(ctx context.Context, to kv.Store, progress func(records int)) error {
	if err := beginCopy(ctx, to); err != nil {
		return err
	}
	w := kv.Writer{To: to, Progress: progress}
	err := s.Each(ctx, func(table string, p kv.Pair) error { return w.Add(ctx, table, p) })
	if err == nil {
		err = w.Flush(ctx)
	}
	return wrap("copy", err)
}

// FinishCopy makes a copy a state.
func FinishCopy(ctx context.Context, store kv.Store) error {
	return records{store}.update(ctx, "finish a copy", func(tx kv.Tx) error { return tx.Delete(kv.Settings, []byte(importKey)) })
}

// beginCopy refuses a store with records that are not of a copy.
func beginCopy(ctx context.Context, to kv.Store) error {
	return records{to}.update(ctx, "begin a copy", func(tx kv.Tx) error {
		begun, err := tx.Get(kv.Settings, []byte(importKey))
		if err != nil || begun != nil {
			return err
		}
		for _, table := range ServerTables() {
			if found, err := tx.Range(table, nil, nil, 1); err != nil || len(found) > 0 {
				return errors.Join(err, fmt.Errorf("a state with records %w there", ErrExists))
			}
		}
		return tx.Put(kv.Settings, []byte(importKey), []byte{1})
	})
}

// checkComplete refuses a store whose copy is not complete.
func checkComplete(tx kv.Reader) error {
	begun, err := tx.Get(kv.Settings, []byte(importKey))
	if err == nil && begun != nil {
		err = errUnfinished
	}
	return err
}
