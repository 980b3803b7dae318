package etcd

import (
	"context"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/clusterkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// Import writes records, wherever they are kept, to a prefix without records, checks
// them, and counts them by state. If it ends early, no server opens the result, and
// Import can be called again with the same records. progress is called with the number of
// entries so far, and may be nil.
func Import(ctx context.Context, c Config, from enroll.Stored, progress func(entries int)) (states map[enroll.State]int, err error) {
	p := c.place()
	db, err := p.Open(ctx, etcdkv.OpenOrCreate)
	if err != nil {
		return nil, err
	}
	states, err = importTo(ctx, p, db, from, progress)
	return states, errors.Join(err, db.Close())
}

func importTo(ctx context.Context, p clusterkv.Place, db *etcdkv.DB, from enroll.Stored, progress func(int)) (map[enroll.State]int, error) {
	to, err := kv.BeginCopy(ctx, db, p.Records)
	if err != nil {
		return nil, fmt.Errorf("etcd: enrollments: %w", err)
	}
	seen, err := write(ctx, to, from, progress)
	if err != nil {
		return nil, fmt.Errorf("etcd: write the enrollments to %q: %w", p.Prefix, err)
	}
	copied := &Records{Stored: enroll.StoredIn(bulk().Over(to)), store: to}
	if p.Key != nil {
		if err := seen.MakeRoot(ctx, to, p.Key); err != nil {
			return nil, err
		}
		copied.store = authkv.Open(to, p.Key, p.Summed)
	}
	states, err := copied.Check()
	if err != nil {
		return nil, fmt.Errorf("etcd: %q does not contain what was written, perhaps because something else wrote there: remove everything below that prefix, and try again: %w", p.Prefix, err)
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
