//go:build noetcd

// The small build: no client of etcd. This file stands in for all that have the other tag.

package etcdkv

import (
	"context"
	"errors"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A DB is a store in a cluster. This build has none.
type DB struct{}

var _ kv.Store = (*DB)(nil)

var errLeftOut = errors.New("etcdkv: this msl-hsm was built without etcd: build one without the tag noetcd")

// Open says what this build lacks.
func Open(context.Context, Config, Layout, Opening) (*DB, error) { return nil, errLeftOut }

// View implements [kv.Store].
func (*DB) View(context.Context, func(kv.Reader) error) error { return errLeftOut }

// Update implements [kv.Store].
func (*DB) Update(context.Context, func(kv.Tx) error) error { return errLeftOut }

// Members returns none.
func (*DB) Members(context.Context) []Member { return nil }

// Close does nothing.
func (*DB) Close() error { return nil }

// A Follower is a store with a copy in memory. This build has none.
type Follower struct{ DB }

var _ kv.Shared = (*Follower)(nil)

// Follow says what this build lacks.
func Follow(context.Context, *DB, Following) (*Follower, error) { return nil, errLeftOut }

// Recall implements [kv.Shared].
func (*Follower) Recall(context.Context, func(kv.Reader) error) error { return errLeftOut }
