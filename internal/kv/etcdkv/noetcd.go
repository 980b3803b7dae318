//go:build noetcd

// The small build, without the client of etcd. This file replaces all those with the
// opposite tag.

package etcdkv

import (
	"context"
	"errors"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A DB is a store in a cluster, which this build does not support.
type DB struct{}

var _ kv.Store = (*DB)(nil)

var errLeftOut = errors.New("etcdkv: this msl-hsm was built without etcd: build one without the tag noetcd")

// Open returns an error: this build lacks the client.
func Open(context.Context, Config, Layout, Opening) (*DB, error) { return nil, errLeftOut }

// View implements [kv.Store].
func (*DB) View(context.Context, func(kv.Reader) error) error { return errLeftOut }

// Update implements [kv.Store].
func (*DB) Update(context.Context, func(kv.Tx) error) error { return errLeftOut }

// Members returns none.
func (*DB) Members(context.Context) []Member { return nil }

// Close does nothing.
func (*DB) Close() error { return nil }

// A Follower is a store with a copy in memory, which this build does not support.
type Follower struct{ DB }

var _ kv.Shared = (*Follower)(nil)

// Follow returns an error: this build lacks the client.
func Follow(context.Context, *DB, Following) (*Follower, error) { return nil, errLeftOut }

// Recall implements [kv.Shared].
func (*Follower) Recall(context.Context, func(kv.Reader) error) error { return errLeftOut }
