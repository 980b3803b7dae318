// Package clusterkv opens stores in an etcd cluster that many servers share, each with a copy
// in memory, and whose records a key authenticates: the state of servers and their enrollments
// are such stores. Package etcdkv keeps the records, and package authkv authenticates them.
//
// [Place.Follow] is for servers, [Place.Administer] for commands.
package clusterkv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv"
)

// A Place is where a store is, or will be.
type Place struct {
	etcdkv.Config
	Layout  etcdkv.Layout
	What    string     // for errors, such as "the state"
	Key     authkv.Key // nil means that the records are not authenticated
	Summed  []string   // tables that are copied and authenticated
	Records []string   // tables in which a store has nothing when it is made
	// Following says how a server follows the store; its Observer is set here.
	Following etcdkv.Following
}

// A Cluster is where an open store is. Close closes the store.
type Cluster interface {
	Members(context.Context) []etcdkv.Member
	io.Closer
}

// answerTime is how long a server waits for etcd: its own clients are waiting, too. A new
// leader is usually elected sooner.
const answerTime = 2 * time.Second

// Open opens the store as it is, or makes it, without authenticating anything.
func (p Place) Open(ctx context.Context, how etcdkv.Opening) (*etcdkv.DB, error) {
	return etcdkv.Open(ctx, p.Config, p.Layout, how)
}

// Create makes an empty store, or completes one that somebody began to make. Anything else
// there is [kv.ErrExists].
func (p Place) Create(ctx context.Context) error {
	db, err := p.Open(ctx, etcdkv.CreateNew)
	exists := err
	if errors.Is(exists, kv.ErrExists) && p.Key != nil {
		if db, err = p.Open(ctx, etcdkv.OpenExisting); err == nil {
			err = p.empty(ctx, db, exists)
		}
	}
	if err == nil && p.Key != nil {
		err = authkv.Begin(ctx, db, p.Key)
	}
	if db != nil {
		err = errors.Join(err, db.Close())
	}
	return err
}

// empty returns otherwise if a store was made completely, or has records.
func (p Place) empty(ctx context.Context, db *etcdkv.DB, otherwise error) error {
	begun, err := authkv.Begun(ctx, db, p.Records)
	if err == nil && begun {
		err = otherwise
	}
	return err
}

// begun opens a store that exists. If nothing has happened to it since it was made, the error is
// [kv.ErrEmpty].
func (p Place) begun(ctx context.Context) (*etcdkv.DB, error) {
	db, err := p.Open(ctx, etcdkv.OpenExisting)
	if err != nil || p.Key == nil {
		return db, err
	}
	begun, err := authkv.Begun(ctx, db, p.Records)
	if err == nil && !begun {
		err = cmp.Or(db.View(ctx, kv.Copied), fmt.Errorf("clusterkv: %s at %q: it was not made completely: %w", p.What, p.Prefix, kv.ErrEmpty))
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// Follow opens an existing store for a server, copies it into memory, and makes the newest
// version of the key authenticate it. A place without a store is [kv.ErrEmpty].
func (p Place) Follow(ctx context.Context) (kv.Shared, Cluster, error) {
	p.Timeout = answerTime
	db, err := p.begun(ctx)
	if err != nil {
		return nil, nil, err
	}
	seen := authkv.NewSeen(p.Summed)
	if p.Key != nil {
		p.Following.Observer = seen
	}
	f, err := etcdkv.Follow(ctx, db, p.Following)
	if err != nil {
		return nil, nil, err
	}
	if p.Key == nil {
		return f, f, p.unsigned(ctx, f, f)
	}
	authentic := authkv.OpenShared(f, p.Key, p.Summed, seen)
	err = f.Recall(ctx, kv.Copied) // the root says nothing of a part
	if err == nil {
		err = authentic.Recall(ctx, func(kv.Reader) error { return nil })
	}
	if err == nil {
		err = authentic.Renew(ctx)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return authentic, f, nil
}

// Administer opens an existing store without a copy in memory, for a program that reads or
// changes it once. A place without a store is [kv.ErrEmpty].
func (p Place) Administer(ctx context.Context) (kv.Store, Cluster, error) {
	db, err := p.begun(ctx)
	if err != nil {
		return nil, nil, err
	}
	if p.Key == nil {
		return db, db, p.unsigned(ctx, db, db)
	}
	return authkv.Open(db, p.Key, p.Summed), db, nil
}

// unsigned closes a store that needs a key.
func (p Place) unsigned(ctx context.Context, store kv.Store, at Cluster) error {
	rooted, err := authkv.HasRoot(ctx, store)
	if err == nil && rooted {
		err = fmt.Errorf("clusterkv: %s: it is authenticated, but no key was given", p.What)
	}
	if err != nil {
		err = errors.Join(err, at.Close())
	}
	return err
}
