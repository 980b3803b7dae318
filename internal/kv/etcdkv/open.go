//go:build !noetcd

package etcdkv

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

const (
	formatVersion = 1
	formatKey     = "format" // in [kv.Settings]
)

// format is the record that identifies a store.
type format struct {
	Kind    string `json:"kind"`
	Version int    `json:"version"`
	ID      string `json:"id"` // random: tells who made it
}

// Open connects to a cluster and opens the store at the prefix, or makes it.
func Open(ctx context.Context, c Config, l Layout, how Opening) (*DB, error) {
	c = c.withDefaults()
	if err := errors.Join(c.check(), l.check()); err != nil {
		return nil, err
	}
	at := &cluster{config: c, prefix: strings.TrimSuffix(c.Prefix, "/") + "/"}
	at.config.Timeout = c.DialTimeout
	d := &DB{cluster: at, layout: l, turn: make(chan struct{}, 1), marks: marks{at: at, own: rand.Text()}}
	if err := d.connect(ctx); err != nil {
		return nil, d.explain(err)
	}
	err := d.find(ctx, how)
	if err == nil {
		err = d.marks.removeOld(ctx, time.Now())
	}
	if err != nil {
		return nil, errors.Join(d.explainEach(ctx, err), d.client.Close())
	}
	d.config.Timeout = c.Timeout
	return d, nil
}

// find finds the store, or makes it. If several processes make it at the same time, one
// succeeds.
func (d *DB) find(ctx context.Context, how Opening) error {
	id := rand.Text()
	for {
		there, err := d.look(ctx)
		if err == nil && there == nil {
			there, err = d.elsewhere(ctx, how)
		}
		switch {
		case err != nil:
			return err
		case there == nil && how == OpenExisting:
			return fail(kv.ErrEmpty, "there is no store at %q: check the prefix and the endpoints, or make it", d.config.Prefix)
		case there == nil:
			if err := d.create(ctx, id); err != nil {
				return err
			}
			continue
		case there.ID != id && how == CreateNew:
			return fail(kv.ErrExists, "a store at %q exists already: use it, or choose another prefix", d.config.Prefix)
		}
		return d.verify(there)
	}
}

// elsewhere looks for a store that the cluster that answered does not have in another one to
// which endpoints belong, by mistake or because that one is of others. Before a store is made,
// all endpoints that answer must belong to one cluster.
func (d *DB) elsewhere(ctx context.Context, how Opening) (there *format, err error) {
	own, other := d.clusters(ctx)
	if len(other) == 0 {
		return nil, nil
	}
	if how == OpenExisting {
		if err := d.leave(ctx, own); err != nil {
			return nil, err
		}
		there, err = d.look(ctx)
	}
	if err == nil && there == nil {
		err = fail(nil, "the endpoints belong to different clusters: %s to one, and %s to another: leave out the wrong ones", strings.Join(own, ", "), strings.Join(other, ", "))
	}
	return there, err
}

// look reads the format record, and checks that there are no foreign keys.
func (d *DB) look(ctx context.Context) (there *format, err error) {
	err = d.ask(ctx, func(ctx context.Context) error {
		answer, err := d.client.Txn(ctx).Then(append(d.gaps(), clientv3.OpGet(d.key(kv.Settings, formatKey)), clientv3.OpGet(d.prefix, clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly()))...).Commit()
		if err != nil {
			return err
		}
		there, err = d.looked(answer)
		return err
	})
	return there, err
}

func (d *DB) looked(answer *clientv3.TxnResponse) (*format, error) {
	last := len(answer.Responses) - 1
	for _, r := range answer.Responses[:last-1] {
		if found := r.GetResponseRange().Kvs; len(found) > 0 {
			return nil, fail(kv.ErrFormat, "there are keys of others at %q, such as %q: choose another prefix", d.config.Prefix, found[0].Key)
		}
	}
	found := answer.Responses[last-1].GetResponseRange().Kvs
	if len(found) == 0 && len(answer.Responses[last].GetResponseRange().Kvs) > 0 {
		return nil, fail(kv.ErrDamaged, "the store at %q has lost its format record: restore a backup", d.config.Prefix)
	}
	if err := d.see(d.newest.Load(), answer.Header.Revision); err != nil || len(found) == 0 {
		return nil, err
	}
	d.made = found[0].ModRevision
	value, ok := kv.Unframe(kv.Settings, []byte(formatKey), found[0].Value)
	var f format
	if !ok || json.Unmarshal(value, &f) != nil {
		return nil, fail(kv.ErrDamaged, "the store at %q does not say its format: restore a backup", d.config.Prefix)
	}
	return &f, nil
}

// gaps reads one key of each range between the tables, where none belong.
func (d *DB) gaps() (all []clientv3.Op) {
	start := d.prefix
	ends := d.layout.inOrder()
	for _, table := range ends {
		all = append(all, span{start: start, end: d.key(table, "")}.get(1, clientv3.WithKeysOnly()))
		start = string(kv.PrefixEnd([]byte(d.key(table, ""))))
	}
	return append(all, span{start: start, end: string(kv.PrefixEnd([]byte(d.prefix)))}.get(1, clientv3.WithKeysOnly()))
}

// above refuses a prefix below that of another store of this kind, which could then no
// longer be opened because of foreign keys.
func (d *DB) above(ctx context.Context) error {
	for at, rest := 0, strings.TrimSuffix(d.prefix, "/"); ; at++ {
		slash := strings.IndexByte(rest[at:], '/')
		if slash < 0 {
			return nil
		}
		at += slash
		other := cluster{prefix: rest[:at+1]}
		err := d.ask(ctx, func(ctx context.Context) error {
			answer, err := d.client.Get(ctx, other.key(kv.Settings, formatKey))
			if err != nil || len(answer.Kvs) == 0 {
				return err
			}
			var f format
			value, ok := kv.Unframe(kv.Settings, []byte(formatKey), answer.Kvs[0].Value)
			if ok && json.Unmarshal(value, &f) == nil && f.Kind == d.layout.Kind {
				return fail(kv.ErrFormat, "a store is at %q, and %q is a place in it: choose a prefix beside it, such as %q", rest[:at], d.config.Prefix, rest[:at]+"-2")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// create makes the format record if there is nothing at the prefix.
func (d *DB) create(ctx context.Context, id string) error {
	if err := d.above(ctx); err != nil {
		return err
	}
	value, err := json.Marshal(format{Kind: d.layout.Kind, Version: formatVersion, ID: id})
	if err != nil {
		return err
	}
	record := string(kv.Frame(kv.Settings, []byte(formatKey), value))
	return d.ask(ctx, func(ctx context.Context) error {
		_, err := d.client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(d.prefix), "<", 1).WithPrefix()).
			Then(clientv3.OpPut(d.key(kv.Settings, formatKey), record)).Commit()
		return err
	})
}

func (d *DB) verify(f *format) error {
	switch {
	case f.Kind != d.layout.Kind:
		return fail(kv.ErrFormat, "the store at %q is of the kind %q, not %q: choose another prefix", d.config.Prefix, f.Kind, d.layout.Kind)
	case f.Version > formatVersion:
		return fail(kv.ErrFormat, "the store at %q has version %d, and this program knows %d: use a newer msl-hsm", d.config.Prefix, f.Version, formatVersion)
	case f.Version != formatVersion:
		return fail(kv.ErrDamaged, "the store at %q has the unknown version %d", d.config.Prefix, f.Version)
	}
	return nil
}
