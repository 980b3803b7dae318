package bolt

import (
	"context"
	"errors"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// A Client is the state of one client, in a file that several clients may use in turn.
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
	store, db, err := openClients(path, boltkv.OpenOrCreate)
	if err != nil {
		return nil, err
	}
	c, err := state.NewClient(store, name)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Client{c, db}, nil
}

func openClients(path string, how boltkv.Opening) (kv.Store, *boltkv.DB, error) {
	db, err := boltkv.Open(path, clientLayout(), how)
	return advised{db, path, clientAdvice()}, db, err
}

func clientAdvice() advice {
	return advice{holder: "another client", remedy: "correct the path, or delete it to start a new session"}
}

func clientLayout() boltkv.Layout {
	return boltkv.Layout{
		Kind:     "client",
		Name:     "state file",
		Tables:   state.ClientTables(),
		LockWait: 5 * time.Second,
		Explain:  clientAdvice().explain,
	}
}

// Clients are the states of all clients of a file.
type Clients struct {
	store kv.Store
	db    *boltkv.DB
}

// OpenClients opens the file at path, which must exist. The errors are those of
// [OpenClient].
func OpenClients(path string) (*Clients, error) {
	store, db, err := openClients(path, boltkv.OpenExisting)
	if err != nil {
		return nil, err
	}
	return &Clients{store, db}, nil
}

// Names returns the names of the clients.
func (c *Clients) Names() ([]string, error) { return state.ClientNames(c.store) }

// Client returns the state of one client, by its name as listed by Names.
func (c *Clients) Client(name string) *state.Client { return state.StoredClient(c.store, name) }

// Close closes the file.
func (c *Clients) Close() error { return c.db.Close() }

// CompactClients rewrites the file at path to purge removed data. If a process has the
// file open, it returns [ErrInUse].
func CompactClients(path string) error {
	_, _, err := clientLayout().Compact(path, func(copied string) error {
		_, db, err := openClients(copied, boltkv.OpenExisting)
		if err != nil {
			return err
		}
		return db.Close()
	})
	return err
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
