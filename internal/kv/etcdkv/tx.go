//go:build !noetcd

package etcdkv

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A tx remembers what it read and collects changes.
type tx struct {
	snapshot
	reads   []read
	changes map[string]change // by etcd key
}

// A read is a span that must not change, or a single key with its revision.
type read struct {
	span
	revision int64
}

// A change puts a framed value, or removes a record if that is nil.
type change struct {
	table  string
	framed []byte
}

// Get implements [kv.Reader].
func (t *tx) Get(table string, key []byte) ([]byte, error) {
	at := t.db.key(table, string(key))
	if c, ok := t.changes[at]; ok {
		value, _ := kv.Unframe(table, key, c.framed)
		return value, nil
	}
	value, revision, err := t.get(table, key)
	t.reads = append(t.reads, read{span{table, at, ""}, revision})
	return value, err
}

// Range implements [kv.Reader].
func (t *tx) Range(table string, from, to []byte, limit int) (page []kv.Pair, err error) {
	r := t.db.span(table, from, to)
	for end := r.end; r.start < end && len(page) < limit; r.start = r.end {
		found, err := t.read(span{table, r.start, end}, limit)
		if err != nil {
			return nil, err
		}
		r.end = end
		if len(found) == limit { // there may be more
			r.end = string(kv.After(found[limit-1].Key))
		}
		t.reads = append(t.reads, read{span: r})
		pairs, err := t.pairs(table, t.changed(r, found))
		if err != nil {
			return nil, err
		}
		page = append(page, pairs...)
	}
	return page[:min(len(page), max(limit, 0))], nil
}

// changed applies the transaction's own changes to the records found in a span.
func (t *tx) changed(r span, found []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	if len(t.changes) == 0 {
		return found
	}
	found = slices.DeleteFunc(found, func(record *mvccpb.KeyValue) bool {
		_, own := t.changes[string(record.Key)]
		return own
	})
	for key, c := range t.changes {
		if key >= r.start && key < r.end && c.framed != nil {
			found = append(found, &mvccpb.KeyValue{Key: []byte(key), Value: c.framed})
		}
	}
	slices.SortFunc(found, func(a, b *mvccpb.KeyValue) int { return slices.Compare(a.Key, b.Key) })
	return found
}

// Put implements [kv.Tx].
func (t *tx) Put(table string, key, value []byte) error {
	if len(key) > kv.MaxKey || len(value) > kv.MaxValue {
		return fmt.Errorf("etcdkv: a record in %q has %d bytes of key and %d of value, of at most %d and %d", table, len(key), len(value), kv.MaxKey, kv.MaxValue)
	}
	return t.change(table, key, kv.Frame(table, key, value))
}

// Delete implements [kv.Tx].
func (t *tx) Delete(table string, key []byte) error { return t.change(table, key, nil) }

func (t *tx) change(table string, key, framed []byte) error {
	if !t.db.layout.has(table) {
		return fmt.Errorf("etcdkv: the store has no table %q", table)
	}
	if table == kv.Settings && string(key) == formatKey {
		return errors.New("etcdkv: the format record is not to be changed")
	}
	if len(key) == 0 && framed != nil {
		return errors.New("etcdkv: a key is empty")
	}
	if len(key) > 0 {
		t.changes[t.db.key(table, string(key))] = change{table, framed}
	}
	return nil
}

const (
	// maxOperations is etcd's --max-txn-ops, and maxRequest its --max-request-bytes.
	maxOperations = 128
	maxRequest    = 3 << 19
	// maxCompares and maxCompared bound the number of individual comparisons, and the
	// bytes of their keys.
	maxCompares = 96
	maxCompared = 64 << 10
)

// unchanged returns the comparisons that ensure that nothing read has changed.
func (t *tx) unchanged() []clientv3.Cmp {
	reads := distinct(t.reads)
	size := 0
	for _, r := range reads {
		size += len(r.start) + len(r.end)
	}
	if len(reads) > maxCompares || size > maxCompared {
		reads = covering(reads)
	}
	var all []clientv3.Cmp
	ranged := map[string]bool{}
	for _, r := range reads {
		compared := clientv3.ModRevision(r.start)
		if r.end == "" {
			all = append(all, clientv3.Compare(compared, "=", r.revision))
			continue
		}
		all = append(all, clientv3.Compare(compared, "<", t.revision+1).WithRange(r.end))
		if !ranged[r.table] { // a removed record has no revision
			ranged[r.table] = true
			all = append(all, clientv3.Compare(clientv3.ModRevision(t.db.key(removals, r.table)), "<", t.revision+1))
		}
	}
	return all
}

// distinct drops repeated reads of a key at the same revision.
func distinct(reads []read) (all []read) {
	known := map[read]bool{}
	for _, r := range reads {
		if !known[r] {
			known[r] = true
			all = append(all, r)
		}
	}
	return all
}

// covering returns one span for each table that includes all reads: it may report false
// conflicts, but misses none.
func covering(reads []read) []read {
	tables := map[string]span{}
	for _, r := range reads {
		if r.end == "" {
			r.end = r.start + "\x00"
		}
		if all, ok := tables[r.table]; ok {
			r.start, r.end = min(all.start, r.start), max(all.end, r.end)
		}
		tables[r.table] = r.span
	}
	var covered []read
	for _, all := range tables {
		covered = append(covered, read{span: all})
	}
	return covered
}

func (t *tx) operations() (all []clientv3.Op, err error) {
	size, followed := 0, false
	removed := map[string]bool{}
	for key, c := range t.changes {
		size += len(key) + len(c.framed)
		followed = followed || !slices.Contains(t.db.layout.Apart, c.table)
		if c.framed != nil {
			all = append(all, clientv3.OpPut(key, string(c.framed)))
			continue
		}
		all = append(all, clientv3.OpDelete(key))
		if !removed[c.table] {
			removed[c.table] = true
			all = append(all, clientv3.OpPut(t.db.key(removals, c.table), ""))
		}
	}
	if followed {
		all = append(all, clientv3.OpPut(t.db.key(news, ""), ""))
	}
	if len(all)+1 > maxOperations || size > maxRequest {
		return nil, tooLarge(len(t.changes), size)
	}
	return all, nil
}

func tooLarge(changes, size int) error {
	return fmt.Errorf("etcdkv: %d changes with %d bytes are too large for one transaction of etcd: at most %d and %d are certain to be accepted", changes, size, kv.MaxChanges, kv.MaxUpdate)
}

// inOrder returns all tables in the order of their keys.
func (l Layout) inOrder() []string {
	all := append(slices.Clone(l.Tables), kv.Settings, marked, removals, news)
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(l.place(a)+"/", l.place(b)+"/") })
	return slices.Compact(all)
}
