package etcd

import (
	"context"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// Import writes records, wherever they are kept, to a prefix without records, checks
// them, and counts them by state. If it ends early, no server opens the result, and
// Import can be called again with the same records. progress is called with the number of
// entries so far, and may be nil.
func Import(ctx context.Context, c Config, from enroll.Stored, progress func(entries int)) (states map[enroll.State]int, err error) {
	db, err := c.open(ctx, 0, etcdkv.OpenOrCreate)
	if err != nil {
		return nil, err
	}
	states, err = c.importTo(ctx, db, from, progress)
	return states, errors.Join(err, db.Close())
}

func (c Config) importTo(ctx context.Context, db *etcdkv.DB, from enroll.Stored, progress func(int)) (map[enroll.State]int, error) {
	to, err := kv.BeginCopy(ctx, db, append(small(), enroll.RecordTable))
	if err != nil {
		return nil, fmt.Errorf("etcd: enrollments: %w", err)
	}
	seen, err := write(ctx, to, from, progress)
	if err != nil {
		return nil, fmt.Errorf("etcd: write the enrollments to %q: %w", c.Prefix, err)
	}
	copied := &Records{Stored: enroll.StoredIn(bulk().Over(to))}
	if c.Key != nil {
		if err := seen.MakeRoot(ctx, to, enroll.KeyOfRecords(c.Key)); err != nil {
			return nil, err
		}
		copied.verify = authkv.Open(to, enroll.KeyOfRecords(c.Key), small()).Verify
	}
	states, err := copied.Check()
	if err != nil {
		return nil, fmt.Errorf("etcd: %q does not contain what was written, perhaps because something else wrote there: remove everything below that prefix, and try again: %w", c.Prefix, err)
	}
	return states, to.Finish(ctx)
}

// write writes all entries, and returns what was seen of the small tables.
func write(ctx context.Context, db kv.Store, from enroll.Stored, progress func(int)) (*authkv.Seen, error) {
	seen := authkv.NewSeen(small())
	w := kv.Writer{To: db, Progress: progress}
	add := func(table string, p kv.Pair) error {
		seen.Changed(table, p.Key, nil, p.Value)
		return w.Add(ctx, table, p)
	}
	err := from.Each(ctx, func(table string, p kv.Pair) error {
		if table == enroll.RecordTable {
			if err := add(bulk().Digests, kv.Pair{Key: p.Key, Value: bulk().Digest(p.Value)}); err != nil {
				return err
			}
		}
		return add(table, p)
	})
	if err == nil {
		err = w.Flush(ctx)
	}
	return seen, err
}
