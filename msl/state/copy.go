package state

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// Each calls fn for every record as of one moment, by table and in the order of keys. fn
// must not retain its arguments. If the records of that moment are lost in the meantime,
// since the store keeps them only for a while, Each returns an error, and everything has
// to be read again.
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

// copiedSettings are the settings that make up a state. Others belong to its store, or to a
// backup.
func copiedSettings() []string { return []string{beganKey, keepKey} }

func eachSetting(tx kv.Reader, fn func(table string, p kv.Pair) error) error {
	for _, key := range copiedSettings() {
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

// A Digest shows whether two states are equal.
type Digest struct {
	Records int
	sum     [sha256.Size]byte
}

// Digest reads every record.
func (s *Server) Digest(ctx context.Context) (Digest, error) { return DigestOf(ctx, s.store) }

// DigestOf returns the digest of the state in a store, which may be an unfinished copy.
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

// CopyTo writes every record of a state into a store that is empty or has records of an
// earlier, incomplete copy. The store cannot be opened as a state before the copy is finished.
// progress is called with the number of records so far, and may be nil.
func (s *Server) CopyTo(ctx context.Context, to kv.Store, progress func(records int)) (*kv.Copy, error) {
	c, err := kv.BeginCopy(ctx, to, ServerTables())
	if err == nil {
		err = removeSettings(ctx, c)
	}
	if err != nil {
		return nil, wrap("begin a copy", err)
	}
	w := kv.Writer{To: c, Progress: progress}
	err = s.Each(ctx, func(table string, p kv.Pair) error { return w.Add(ctx, table, p) })
	if err == nil {
		err = w.Flush(ctx)
	}
	return c, wrap("copy", err)
}

// removeSettings removes what an earlier copy said of the state as a whole, and what servers
// left there that used the empty state.
func removeSettings(ctx context.Context, store kv.Store) error {
	for more := true; more; {
		err := store.Update(ctx, func(tx kv.Tx) error {
			found, err := someSettings(tx)
			for _, key := range found {
				err = cmp.Or(err, tx.Delete(kv.Settings, key))
			}
			more = len(found) > 0
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// someSettings returns settings that belong to a state, as many as one change may remove.
func someSettings(tx kv.Reader) (keys [][]byte, err error) {
	own := append(copiedSettings(), pairSetting, rotationKey, chronicleKey, notedKey, askedKey)
	for p, err := range kv.All(tx, kv.Settings, nil, nil) {
		if err != nil || len(keys) == kv.MaxChanges/2 {
			return keys, err
		}
		if key := string(p.Key); slices.Contains(own, key) || strings.HasPrefix(key, presenceKey) {
			keys = append(keys, bytes.Clone(p.Key))
		}
	}
	return keys, nil
}
