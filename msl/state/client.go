package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/msl-hsm/msl-hsm/internal/kv"

	"github.com/msl-hsm/msl-hsm/msl"
)

// The tables of clients.
const (
	tableRecords = "records" // by client
	tableCounts  = "counts"  // by client and serial number
)

// ClientTables returns the tables of a store of clients.
func ClientTables() []string { return []string{tableRecords, tableCounts} }

// A Client is the state of one client, in a store that several clients may use in turn.
type Client struct {
	records
	name string
}

var _ msl.ClientState = (*Client)(nil)

// CheckClientName rejects a name that could not be stored or distinguished on a screen.
func CheckClientName(name string) error { return checkName("client", name) }

// NewClient returns the state of a client in a store. The store must have the
// [ClientTables]; the caller closes it. The name distinguishes the clients of a store.
func NewClient(store kv.Store, name string) (*Client, error) {
	if err := CheckClientName(name); err != nil {
		return nil, err
	}
	name, err := storedName(store, name)
	return &Client{records{store}, name}, err
}

// StoredClient returns the state of a client by its name as listed by [ClientNames]. An
// earlier version may have stored two names that are now one, each with its tokens.
func StoredClient(store kv.Store, name string) *Client { return &Client{records{store}, name} }

// storedName returns the name under which a client has its tokens: earlier versions did
// not normalize it.
func storedName(store kv.Store, name string) (string, error) {
	stored := msl.CanonicalName(name)
	names, err := ClientNames(store)
	if err != nil || slices.Contains(names, stored) {
		return stored, err
	}
	for _, n := range names {
		if msl.CanonicalName(n) == stored {
			return n, nil
		}
	}
	return stored, nil
}

// ClientNames returns the names of the clients whose tokens a store has or had.
func ClientNames(store kv.Store) (names []string, err error) {
	err = records{store}.view(context.Background(), "list clients", func(tx kv.Reader) error {
		names = nil
		for p, err := range kv.All(tx, tableRecords, nil, nil) {
			if err != nil {
				return err
			}
			names = append(names, string(p.Key))
		}
		return nil
	})
	return names, err
}

// Load implements msl.ClientState.
func (c *Client) Load(ctx context.Context) (r msl.ClientRecord, err error) {
	err = c.view(ctx, "load tokens", func(tx kv.Reader) error {
		r = msl.ClientRecord{}
		payload, err := tx.Get(tableRecords, []byte(c.name))
		if err != nil || payload == nil {
			return err
		}
		err = kv.DecodeJSON(payload, &r)
		if errors.Is(err, ErrNewer) { // nothing is lost with a session: it can begin anew
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return err
	})
	if err != nil {
		return msl.ClientRecord{}, err
	}
	return r, nil
}

// Save implements msl.ClientState.
func (c *Client) Save(ctx context.Context, r msl.ClientRecord) error {
	for user := range r.UserIDTokens {
		if !utf8.ValidString(user) { // JSON would make two such names equal
			return errors.New("state: save tokens: the name of a user is not UTF-8")
		}
	}
	payload, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("state: save tokens: %w", err)
	}
	return c.update(ctx, "save tokens", func(tx kv.Tx) error {
		return tx.Put(tableRecords, []byte(c.name), payload)
	})
}

// NextID implements msl.ClientState.
func (c *Client) NextID(ctx context.Context, serial int64) (int64, error) {
	key, err := pairKey(c.name, serial)
	if err != nil {
		return 0, err
	}
	var id int64
	err = c.update(ctx, "count a message", func(tx kv.Tx) error {
		payload, err := tx.Get(tableCounts, key)
		if err != nil {
			return err
		}
		var last largestID
		if payload != nil {
			if last, err = decodeLargestID(payload); err != nil {
				return err
			}
		}
		id = msl.NextNonReplayableID(last.id)
		return tx.Put(tableCounts, key, largestID{id, time.Now()}.encode())
	})
	if err != nil {
		return 0, err
	}
	return id, nil
}
