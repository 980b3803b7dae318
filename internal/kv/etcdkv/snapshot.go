//go:build !noetcd

package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A snapshot reads at one revision: the newest one at the first read.
type snapshot struct {
	ctx      context.Context
	db       *DB
	revision int64                       // 0 before the first read
	known    map[span][]*mvccpb.KeyValue // single records already read
	err      error                       // the first error of a read
}

// A span is a range of etcd keys in a table. An empty end means only the key start.
type span struct{ table, start, end string }

// Get implements [kv.Reader].
func (s *snapshot) Get(table string, key []byte) ([]byte, error) {
	value, _, err := s.get(table, key)
	return value, err
}

// get also returns the revision of the record, 0 if there is none.
func (s *snapshot) get(table string, key []byte) (value []byte, revision int64, err error) {
	if err := s.Prefetch(table, key); err != nil {
		return nil, 0, err
	}
	found := s.known[span{table, s.db.key(table, string(key)), ""}]
	if len(found) == 0 {
		return nil, 0, nil
	}
	pairs, err := s.pairs(table, found)
	if err != nil {
		return nil, 0, err
	}
	return pairs[0].Value, found[0].ModRevision, nil
}

// Prefetch implements [kv.Reader].
func (s *snapshot) Prefetch(table string, keys ...[]byte) error {
	var missing []span
	for _, key := range keys {
		r := span{table, s.db.key(table, string(key)), ""}
		if _, known := s.known[r]; !known && !slices.Contains(missing, r) {
			missing = append(missing, r)
		}
	}
	for some := range slices.Chunk(missing, maxOperations) {
		found, err := s.reads(some, 1)
		if err != nil {
			return err
		}
		for i, r := range some {
			s.keep(r, found[i])
		}
	}
	return nil
}

func (s *snapshot) keep(r span, found []*mvccpb.KeyValue) {
	if s.known == nil {
		s.known = map[span][]*mvccpb.KeyValue{}
	}
	s.known[r] = found
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

// span returns the etcd keys for a range of a table.
func (d *DB) span(table string, from, to []byte) span {
	all := d.key(table, "")
	if to == nil {
		return span{table, all + string(from), string(kv.PrefixEnd([]byte(all)))}
	}
	return span{table, all + string(from), all + string(to)}
}

// read returns at most limit records of a span.
func (s *snapshot) read(r span, limit int) ([]*mvccpb.KeyValue, error) {
	found, err := s.reads([]span{r}, limit)
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

// reads returns at most limit records of each span, with one request.
func (s *snapshot) reads(all []span, limit int) (found [][]*mvccpb.KeyValue, err error) {
	if s.err != nil {
		return nil, s.err
	}
	if !s.db.layout.has(all[0].table) {
		return nil, fmt.Errorf("etcdkv: the store has no table %q", all[0].table)
	}
	switch {
	case s.revision == 0:
		found, err = s.first(all, limit)
	case len(all) == 1:
		found, err = s.next(all[0], limit)
	default:
		found, err = s.nextOf(all, limit)
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
// checks that the store still exists.
func (s *snapshot) first(all []span, limit int) (found [][]*mvccpb.KeyValue, err error) {
	before := s.db.newest.Load()
	err = s.db.ask(s.ctx, func(ctx context.Context) error {
		answer, err := s.db.client.Txn(ctx).If(s.db.exists()).Then(gets(all, limit)...).Commit()
		if err != nil {
			return err
		}
		s.revision = answer.Header.Revision
		if !answer.Succeeded {
			return s.db.errGone()
		}
		found = rangesOf(answer)
		return s.db.see(before, s.revision)
	})
	return found, err
}

// next reads the revision of the first read, at any member that has it. A member that
// does not asks the leader first.
func (s *snapshot) next(r span, limit int) (found [][]*mvccpb.KeyValue, err error) {
	options := []clientv3.OpOption{clientv3.WithRev(s.revision), clientv3.WithSerializable()}
	err = s.db.ask(s.ctx, func(ctx context.Context) error {
		answer, err := s.db.client.Do(ctx, r.get(limit, options...))
		if errors.Is(err, rpctypes.ErrFutureRev) {
			answer, err = s.db.client.Do(ctx, r.get(limit, clientv3.WithRev(s.revision)))
		}
		if errors.Is(err, rpctypes.ErrFutureRev) { // for the leader, too
			err = errOther
		}
		if err != nil {
			return err
		}
		found = [][]*mvccpb.KeyValue{answer.Get().Kvs}
		return nil
	})
	return found, err
}

// nextOf is next for several spans.
func (s *snapshot) nextOf(all []span, limit int) (found [][]*mvccpb.KeyValue, err error) {
	err = s.db.ask(s.ctx, func(ctx context.Context) error {
		answer, err := s.db.client.Txn(ctx).Then(gets(all, limit, clientv3.WithRev(s.revision))...).Commit()
		if err != nil {
			return err
		}
		found = rangesOf(answer)
		return nil
	})
	return found, err
}

func gets(all []span, limit int, options ...clientv3.OpOption) (ops []clientv3.Op) {
	for _, r := range all {
		ops = append(ops, r.get(limit, options...))
	}
	return ops
}

func rangesOf(answer *clientv3.TxnResponse) (found [][]*mvccpb.KeyValue) {
	for _, r := range answer.Responses {
		found = append(found, r.GetResponseRange().Kvs)
	}
	return found
}

func (r span) get(limit int, options ...clientv3.OpOption) clientv3.Op {
	options = append(slices.Clip(options), clientv3.WithLimit(int64(limit)))
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
			s.err = fail(kv.ErrDamaged, "a record in %q does not match its checksum", table)
			return nil, s.err
		}
		pairs = append(pairs, kv.Pair{Key: key, Value: value})
	}
	return pairs, nil
}

// outcome returns the result of a transaction whose function returned err. A failed read
// fails the transaction, even if its function continued.
func (s *snapshot) outcome(err error) error {
	if s.err == errAgain || err == nil {
		return s.err
	}
	return err
}
