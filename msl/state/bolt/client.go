package bolt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"go.etcd.io/bbolt"

	"github.com/msl-hsm/msl-hsm/msl"
)

// The parts of a client's file.
const (
	bucketRecords = "records" // by client
	bucketCounts  = "counts"  // by client and serial number
)

const clientRemedy = "delete it to start a new session"

// A Client is the state of one client, in a file that several may share one
// after the other.
type Client struct {
	db   *bbolt.DB
	path string
	name string
}

var _ msl.ClientState = (*Client)(nil)

// OpenClient opens the file at path, or makes it in a directory that is there.
// The name tells the clients of a file apart: use one for each server or
// network. A file that is open already is [ErrInUse], after a while.
func OpenClient(path, name string) (*Client, error) {
	if err := checkName("client", name); err != nil {
		return nil, err
	}
	db, err := open(path, purpose{
		kind:     "client",
		buckets:  []string{bucketRecords, bucketCounts},
		lockWait: 5 * time.Second,
		holder:   "another client",
		remedy:   clientRemedy,
	}, either)
	if err != nil {
		return nil, err
	}
	return &Client{db: db, path: path, name: name}, nil
}

// Close closes the file.
func (c *Client) Close() error {
	if err := c.db.Close(); err != nil {
		return fmt.Errorf("bolt: close %s: %w", c.path, err)
	}
	return nil
}

// Load implements msl.ClientState.
func (c *Client) Load(ctx context.Context) (r msl.ClientRecord, err error) {
	if err := ctx.Err(); err != nil {
		return r, err
	}
	err = view(c.db, func(tx *bbolt.Tx) error {
		payload, err := get(tx, bucketRecords, []byte(c.name))
		if err != nil || payload == nil {
			return err
		}
		return decodeJSON(payload, &r)
	})
	if err != nil {
		return msl.ClientRecord{}, c.failed("load tokens", err)
	}
	return r, nil
}

// Save implements msl.ClientState.
func (c *Client) Save(ctx context.Context, r msl.ClientRecord) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for user := range r.UserIDTokens {
		if !utf8.ValidString(user) { // JSON would make two such names the same
			return errors.New("bolt: save tokens: the name of a user is not UTF-8")
		}
	}
	payload, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("bolt: save tokens: %w", err)
	}
	return c.failed("save tokens", update(c.db, func(tx *bbolt.Tx) error {
		return put(tx, bucketRecords, []byte(c.name), payload)
	}))
}

// NextID implements msl.ClientState.
func (c *Client) NextID(ctx context.Context, serial int64) (int64, error) {
	key, err := pairKey(c.name, serial)
	if err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var id int64
	err = update(c.db, func(tx *bbolt.Tx) error {
		payload, err := get(tx, bucketCounts, key)
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
		return put(tx, bucketCounts, key, largestID{id, time.Now()}.encode())
	})
	if err != nil {
		return 0, c.failed("count a message", err)
	}
	return id, nil
}

func (c *Client) failed(op string, err error) error {
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("bolt: %s: %s cannot be used: %s: %w", op, c.path, clientRemedy, err)
	}
	return wrap(op, err)
}
