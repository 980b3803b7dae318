//go:build !noetcd

package etcdkv

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// rows are the records of a table, in the order of their keys.
type rows []kv.Pair

func (r rows) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(r, key, func(p kv.Pair, key []byte) int { return bytes.Compare(p.Key, key) })
}

// put adds or replaces a record.
func (r rows) put(p kv.Pair) rows {
	i, found := r.find(p.Key)
	if found {
		r[i] = p
		return r
	}
	return slices.Insert(r, i, p)
}

// drop removes a record, if there is one.
func (r rows) drop(key []byte) rows {
	if i, found := r.find(key); found {
		return slices.Delete(r, i, i+1)
	}
	return r
}

// A tables is a copy of tables by name. It reads them as a [kv.Reader].
type tables map[string]rows

var _ kv.Reader = tables(nil)

// Get implements [kv.Reader].
func (t tables) Get(table string, key []byte) ([]byte, error) {
	all, err := t.of(table)
	if i, found := all.find(key); found {
		return all[i].Value, err
	}
	return nil, err
}

// Prefetch implements [kv.Reader]: all is in memory.
func (t tables) Prefetch(string, ...[]byte) error { return nil }

// Range implements [kv.Reader].
func (t tables) Range(table string, from, to []byte, limit int) ([]kv.Pair, error) {
	all, err := t.of(table)
	if err != nil {
		return nil, err
	}
	start, _ := all.find(from)
	end := len(all)
	if to != nil {
		end, _ = all.find(to)
	}
	end = min(end, start+max(limit, 0))
	if start >= end {
		return nil, nil
	}
	return slices.Clone(all[start:end]), nil
}

func (t tables) of(table string) (rows, error) {
	all, ok := t[table]
	if !ok {
		return nil, fmt.Errorf("etcdkv: there is no copy of the table %q", table)
	}
	return all, nil
}

// copyOf reads whole tables, in larger pages than other readers: each costs a request.
func copyOf(r kv.Reader, names []string) (tables, error) {
	const page = 1000
	t := tables{}
	for _, table := range names {
		t[table] = rows{}
		for from, more := []byte(nil), true; more; {
			found, err := r.Range(table, from, nil, page)
			if err != nil {
				return nil, err
			}
			t[table] = append(t[table], found...)
			if more = len(found) == page; more {
				from = kv.After(found[page-1].Key)
			}
		}
	}
	return t, nil
}
