//go:build !noetcd

package etcdkv

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A snapshot reads at one revision: the newest when it first reads.
type snapshot struct {
	ctx      context.Context
	db       *DB
	revision int64 // 0 before the first read
	err      error // the first error of a read
}

// A span is a range of keys of etcd in a table. An empty end means only the key start.
type span struct{ table, start, end string }

// Get implements [kv.Reader].
func (s *snapshot) Get(table string, key []byte) ([]byte, error) {
	value, _, err := s.get(table, key)
	return value, err
}

// get also returns the revision of the record, 0 if there is none.
func (s *snapshot) get(table string, key []byte) (value []byte, revision int64, err error) {
	found, err := s.read(span{table, s.db.key(table, string(key)), ""}, 1)
	if err != nil || len(found) == 0 {
		return nil, 0, err
	}
	pairs, err := s.pairs(table, found)
	if err != nil {
		return nil, 0, err
	}
	return pairs[0].Value, found[0].ModRevision, nil
}

// Range implements [kv.Reader].
func (s *snapshot) Range(table string, from, to []byte, limit int) ([]kv.Pair, error) {
	r := s.db.span(table, from, to)
	if r.start >= r.end || limit <= 0 {
		return nil, nil
	}
	found, err := s.read(r, limit)
	if err != nil {
		return nil, err
	}
	return s.pairs(table, found)
}

// span returns the keys of etcd for a range of a table.
func (d *DB) span(table string, from, to []byte) span {
	all := d.key(table, "")
	if to == nil {
		return span{table, all + string(from), string(kv.PrefixEnd([]byte(all)))}
	}
	return span{table, all + string(from), all + string(to)}
}

// read returns at most limit records of a span.
func (s *snapshot) read(r span, limit int) (found []*mvccpb.KeyValue, err error) {
	if s.err != nil {
		return nil, s.err
	}
	if !s.db.layout.has(r.table) {
		return nil, fmt.Errorf("etcdkv: the store has no table %q", r.table)
	}
	if s.revision == 0 {
		found, err = s.first(r, limit)
	} else {
		found, err = s.next(r, limit)
	}
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		err = errAgain
	case err != nil:
		err = s.db.explain(err)
	}
	s.err = err
	return found, err
}

// first reads the newest revision, which is linearizable since it is a transaction, and
// makes sure that the store is still there.
func (s *snapshot) first(r span, limit int) (found []*mvccpb.KeyValue, err error) {
	before := s.db.newest.Load()
	err = s.db.ask(s.ctx, func(ctx context.Context) error {
		answer, err := s.db.client.Txn(ctx).If(s.db.exists()).Then(r.get(limit)).Commit()
		if err != nil {
			return err
		}
		s.revision = answer.Header.Revision
		if !answer.Succeeded {
			return s.db.errGone()
		}
		found = answer.Responses[0].GetResponseRange().Kvs
		return s.db.see(before, s.revision)
	})
	return found, err
}

// next reads the revision of the first read, at any member that has it. Another member
// asks the leader first.
func (s *snapshot) next(r span, limit int) (found []*mvccpb.KeyValue, err error) {
	options := []clientv3.OpOption{clientv3.WithRev(s.revision), clientv3.WithSerializable()}
	err = s.db.ask(s.ctx, func(ctx context.Context) error {
		answer, err := s.db.client.Do(ctx, r.get(limit, options...))
		if errors.Is(err, rpctypes.ErrFutureRev) {
			answer, err = s.db.client.Do(ctx, r.get(limit, clientv3.WithRev(s.revision)))
		}
		if err != nil {
			return err
		}
		found = answer.Get().Kvs
		return nil
	})
	return found, err
}

func (r span) get(limit int, options ...clientv3.OpOption) clientv3.Op {
	options = append(options, clientv3.WithLimit(int64(limit)))
	if r.end != "" {
		options = append(options, clientv3.WithRange(r.end))
	}
	return clientv3.OpGet(r.start, options...)
}

// pairs checks records and returns them without what etcdkv adds.
func (s *snapshot) pairs(table string, found []*mvccpb.KeyValue) (pairs []kv.Pair, err error) {
	skip := len(s.db.key(table, ""))
	for _, record := range found {
		key := record.Key[skip:]
		value, ok := kv.Unframe(table, key, record.Value)
		if !ok {
			s.err = fail(kv.ErrDamaged, "a record in %q does not fit its checksum", table)
			return nil, s.err
		}
		pairs = append(pairs, kv.Pair{Key: key, Value: value})
	}
	return pairs, nil
}

// outcome returns the result of a transaction whose function returned err. A failed read
// fails the transaction, even if its function went on.
func (s *snapshot) outcome(err error) error {
	if s.err == errAgain || err == nil {
		return s.err
	}
	return err
}
