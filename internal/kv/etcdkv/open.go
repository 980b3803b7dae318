//go:build !noetcd

package etcdkv

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

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
	d := &DB{config: c, layout: l, prefix: strings.TrimSuffix(c.Prefix, "/") + "/", turn: make(chan struct{}, 1)}
	d.marks.own = rand.Text()
	d.config.Timeout = c.DialTimeout
	if err := d.connect(ctx); err != nil {
		return nil, d.explain(err)
	}
	err := d.find(ctx, how)
	if err == nil {
		err = d.removeOldMarks(ctx, time.Now())
	}
	if err != nil {
		return nil, errors.Join(d.explain(err), d.client.Close())
	}
	d.config.Timeout = c.Timeout
	return d, nil
}

func (d *DB) connect(ctx context.Context) (err error) {
	c := clientv3.Config{
		Endpoints:            d.config.Endpoints,
		DialTimeout:          d.config.DialTimeout,
		DialKeepAliveTime:    10 * time.Second, // finds a member that no longer answers
		DialKeepAliveTimeout: 5 * time.Second,
		MaxUnaryRetries:      2, // one after a new login; ask does the rest
		Username:             d.config.User,
		Logger:               zap.NewNop(),
		DialOptions:          d.dialing(),
	}
	if strings.HasPrefix(d.config.Endpoints[0], "https:") {
		c.TLS = d.config.TLS.Clone()
		if c.TLS == nil {
			c.TLS = &tls.Config{}
		}
	}
	if d.config.Password != nil {
		password, err := d.config.Password(ctx)
		if err != nil {
			return fail(err, "read the password of the etcd user: %v", err)
		}
		c.Password = string(password)
		clear(password)
		if c.Password == "" {
			return fail(nil, "the password of the etcd user %q is empty", d.config.User)
		}
	}
	d.client, err = clientv3.New(c)
	return err
}

// dialing has requests fail while there is no connection, with an error that says why,
// which is lost if they wait for one; ask repeats them.
func (d *DB) dialing() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return invoke(ctx, method, request, reply, conn, append(options, grpc.WaitForReady(false))...)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: d.config.DialTimeout,
		}),
	}
}

// find finds the store, or makes it. If several make it at the same time, one does.
func (d *DB) find(ctx context.Context, how Opening) error {
	id := rand.Text()
	for {
		there, err := d.look(ctx)
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

// look reads the format record, and makes sure that there are no keys of others.
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
		return nil, fail(kv.ErrDamaged, "the store at %q does not tell its format: restore a backup", d.config.Prefix)
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

// create makes the format record if there is nothing at the prefix.
func (d *DB) create(ctx context.Context, id string) error {
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
