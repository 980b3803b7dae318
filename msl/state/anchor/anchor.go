// Package anchor binds the state of a client to a counter that only grows, such as one
// in a TPM, so that restoring an old copy of the state does no harm.
//
// A [Client] wraps another msl.ClientState. The ids of non-replayable messages are
// derived from the counter and from the start of the session, not from the last id in
// the state: an id is never issued twice, whatever copy of the state is restored. A
// copy from before the last increment is detected, and its session is abandoned for a
// new one.
//
// # What it costs
//
// Increments wear out a TPM, so each one covers a batch of ids: it happens at the first
// non-replayable message of a process, and again after every [Batch] of them. The unused
// rest of a batch is lost; a server accepts ids up to 65536 ahead, and ends the session
// of a client that is further ahead. Ids within a batch need no disk write.
//
// # What it does not protect
//
// A copy made since the last increment is not detected, though ids are still not
// repeated. The counter is not secret: anyone with access to it can increment it, which
// costs the client its session. An attacker who modifies the state, instead of restoring
// an old copy, can also modify the anchor in it. A snapshot that also resets the counter,
// such as one of a virtual machine with its TPM, resets everything.
//
// Use a counter for only one state of one client.
package anchor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/msl-hsm/msl-hsm/msl"
)

// Batch is how many ids an increment covers.
const Batch = 4096

const (
	maxCounter = 1 << 50 // positions up to here are far below 2^64
	maxID      = 1 << 53 // of a message
	attempts   = 3       // at an undisturbed increment
)

// ErrRolledBack says that a state is an old copy.
var ErrRolledBack = errors.New("anchor: the state is an old copy")

// A Counter only grows, whatever happens to the disk. Increment returns the new value.
type Counter interface {
	Increment() (uint64, error)
	Value() (uint64, error)
}

// A Client is an msl.ClientState bound to a counter. Its fields must not change after the
// first call.
type Client struct {
	State   msl.ClientState
	Counter Counter
	// Name distinguishes the counter from others: a state bound to another counter is not
	// used.
	Name string
	// Notice is called with the reason when a session is abandoned. It may be nil.
	Notice func(error)

	mu      sync.Mutex
	loaded  bool
	record  msl.ClientRecord // without the anchor
	value   uint64           // of the counter, or the one the next increment must yield
	serial  int64            // of the master token in the record
	last    uint64           // position of the last id
	limit   uint64           // of the batch
	origins map[int64]uint64 // position before the first id, by serial number
}

var _ msl.ClientState = (*Client)(nil)

// An anchored record holds the value of the counter when it was written, or the value
// after the next increment. Ids count from Origin.
type anchored struct {
	Counter string `json:"counter"`
	Value   uint64 `json:"value"`
	Serial  int64  `json:"serial"`
	Origin  uint64 `json:"origin"`
}

// BoundTo returns the name of the counter that a record is bound to, or "".
func BoundTo(r msl.ClientRecord) string {
	var a anchored
	if json.Unmarshal(r.Anchor, &a) != nil {
		return ""
	}
	return a.Counter
}

// Load implements msl.ClientState. It returns an empty record if the state is an old
// copy or was never bound to the counter.
func (c *Client) Load(ctx context.Context) (msl.ClientRecord, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.State.Load(ctx)
	if err != nil {
		return msl.ClientRecord{}, err
	}
	if c.value, err = c.readCounter(); err != nil {
		return msl.ClientRecord{}, err
	}
	origin, err := c.check(r)
	if err != nil {
		if c.Notice != nil {
			c.Notice(err)
		}
		r = msl.ClientRecord{}
	}
	r.Anchor = nil
	c.record, c.origins = r, map[int64]uint64{}
	c.last = (c.value + 1) * Batch // an earlier process may have used up this batch
	c.limit = c.last
	if r.MasterToken != nil {
		c.origins[c.serial] = origin
	}
	c.loaded = true
	return r, nil
}

func (c *Client) readCounter() (uint64, error) {
	value, err := c.Counter.Value()
	if err == nil && value > maxCounter {
		err = fmt.Errorf("anchor: the counter %s is %d, which is out of range", c.Name, value)
	}
	return value, err
}

// check compares a record with the counter, and returns the position from which the ids
// of its master token count.
func (c *Client) check(r msl.ClientRecord) (origin uint64, err error) {
	if r.Anchor == nil {
		if r.MasterToken != nil {
			return 0, fmt.Errorf("anchor: the state was not bound to the counter %s before: a new session begins", c.Name)
		}
		return 0, nil
	}
	var a anchored
	if err := json.Unmarshal(r.Anchor, &a); err != nil {
		return 0, fmt.Errorf("anchor: the state has a damaged anchor: a new session begins: %w", err)
	}
	if a.Counter != c.Name {
		return 0, fmt.Errorf("anchor: the state is bound to the counter %s, and not to %s: a new session begins", a.Counter, c.Name)
	}
	// A process that ended between the write and the increment leaves a record one
	// ahead.
	if a.Value != c.value && a.Value != c.value+1 {
		return 0, fmt.Errorf("%w, from when the counter %s was %d; it is now %d: a new session begins; if nobody restored it, another state uses the counter", ErrRolledBack, c.Name, a.Value, c.value)
	}
	if r.MasterToken == nil {
		return 0, nil
	}
	token, err := msl.ParseMasterToken(r.MasterToken)
	if err != nil {
		return 0, err
	}
	if c.serial = token.SerialNumber; a.Serial != c.serial || a.Origin > c.value*Batch+Batch {
		return 0, errors.New("anchor: the anchor in the state is that of another session: a new one begins")
	}
	return a.Origin, nil
}

// Save implements msl.ClientState.
func (c *Client) Save(ctx context.Context, r msl.ClientRecord) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.loaded {
		return errNotLoaded()
	}
	if r.MasterToken != nil {
		token, err := msl.ParseMasterToken(r.MasterToken)
		if err != nil {
			return err
		}
		c.serial = token.SerialNumber
		c.origin(c.serial)
	}
	c.record = r
	return c.save(ctx)
}

// save writes the record with its anchor.
func (c *Client) save(ctx context.Context) (err error) {
	a := anchored{Counter: c.Name, Value: c.value}
	if c.record.MasterToken != nil {
		a.Serial, a.Origin = c.serial, c.origins[c.serial]
	}
	r := c.record
	if r.Anchor, err = json.Marshal(a); err != nil {
		return err
	}
	return c.State.Save(ctx, r)
}

// origin returns the position from which the ids of a serial number count. An unknown
// serial number has no ids yet.
func (c *Client) origin(serial int64) uint64 {
	if _, known := c.origins[serial]; !known {
		c.origins[serial] = c.last
	}
	return c.origins[serial]
}

// NextID implements msl.ClientState. Ids grow, possibly with gaps.
func (c *Client) NextID(ctx context.Context, serial int64) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.loaded {
		return 0, errNotLoaded()
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if c.last == c.limit {
		if err := c.nextBatch(ctx); err != nil {
			return 0, err
		}
	}
	origin := c.origin(serial)
	c.last++
	id := c.last - origin
	if id > maxID {
		return 0, fmt.Errorf("anchor: no id is left for this session: delete the state to begin a new one")
	}
	return int64(id), nil
}

// nextBatch increments the counter, after storing the new value in the state: wherever
// the process ends in between, the state matches the counter. If another process
// increments it at the same time, neither can tell whose value it is, so both discard it.
func (c *Client) nextBatch(ctx context.Context) error {
	for range attempts {
		before, err := c.readCounter()
		if err != nil {
			return err
		}
		c.value = before + 1
		if err := c.save(ctx); err != nil {
			return err
		}
		after, err := c.Counter.Increment()
		if err != nil {
			return err
		}
		if after == c.value {
			c.last, c.limit = after*Batch, (after+1)*Batch
			return nil
		}
		c.value = after
	}
	return fmt.Errorf("anchor: something else increments the counter %s at the same time: give each state a counter of its own", c.Name)
}

func errNotLoaded() error { return errors.New("anchor: the state was not loaded") }
