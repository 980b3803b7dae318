package bolt

import (
	"context"
	"errors"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// A Client is the state of one client, in a file that several clients may use one after
// the other.
type Client struct {
	*state.Client
	db *boltkv.DB
}

// OpenClient opens the file at path, or creates it in an existing directory. The name
// distinguishes the clients of a file: use one for each server or network. If another
// process has the file open, OpenClient returns [ErrInUse] after a while.
func OpenClient(path, name string) (*Client, error) {
	if err := state.CheckClientName(name); err != nil {
		return nil, err
	}
	a := advice{holder: "another client", remedy: "delete it to start a new session"}
	db, err := boltkv.Open(path, boltkv.Layout{
		Kind:     "client",
		Name:     "state file",
		Tables:   state.ClientTables(),
		LockWait: 5 * time.Second,
		Explain:  a.explain,
	}, boltkv.OpenOrCreate)
	if err != nil {
		return nil, err
	}
	c, err := state.NewClient(advised{db, path, a}, name)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Client{c, db}, nil
}

// Close closes the file.
func (c *Client) Close() error { return c.db.Close() }

// An advised store adds advice to the error if its file turns out to be damaged.
type advised struct {
	store  kv.Store
	path   string
	advice advice
}

// View implements kv.Store.
func (a advised) View(ctx context.Context, fn func(kv.Reader) error) error {
	return a.explain(a.store.View(ctx, fn))
}

// Update implements kv.Store.
func (a advised) Update(ctx context.Context, fn func(kv.Tx) error) error {
	return a.explain(a.store.Update(ctx, fn))
}

func (a advised) explain(err error) error {
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	return a.advice.explain(a.path, err)
}
