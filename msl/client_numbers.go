package msl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Numbers gives out a client's non-replayable ids so that none arrives too late. A peer
// treats an id six or more behind the largest one as an attack and ends the session; an
// id that is less late it asks for again. The limit concerns how far apart the ids are, not
// how many messages are under way.
//
// A slow message holds up those after it, for numberPatience at most; they then ask for
// another session, whose ids start anew.
//
// An id is under way until the peer can no longer accept it: it was answered, a later one
// of the session was accepted, or the session was replaced. A message that was abandoned,
// or whose answer did not come, may still arrive.
type numbers struct {
	turn chan struct{} // held while taking an id, or to be the only message

	mu       sync.Mutex
	last     number // the last one drawn
	underWay map[*number]bool
	changed  chan struct{} // closed when an id is no longer under way
}

// A number is an id of the session with that serial number, or a place for one not drawn
// yet.
type number struct {
	serial, id int64
	alone      bool // no other message takes an id while it is in progress
	turn       bool // holds the turn
	spent      bool // its session has no usable ids left
	since      time.Time
	fate       fate
}

// A fate is what became of the message with an id.
type fate int

const (
	unsent   fate = iota // not sent, or still under way
	gone                 // sent; whether it arrives is unknown
	answered             // answered, but maybe refused before the peer looked at its id
	seen                 // the peer has seen the id, and accepts neither it nor an earlier one
)

// idSpread bounds how far apart the ids in use may be: each is less than the oldest plus
// idSpread.
const idSpread = maxMessages/2 - 1

// numberPatience is how long to wait for a message.
const numberPatience = 5 * time.Second

// errSpent says that no more ids can be used until messages that are lost or slow have
// ended: only another session can continue.
var errSpent = errors.New("msl: too many non-replayable messages are under way or lost")

func newNumbers() *numbers {
	return &numbers{turn: make(chan struct{}, 1), underWay: map[*number]bool{}, changed: make(chan struct{})}
}

// reserve waits until the next id of a session may be used. It is called before the
// message is made, since others may wait for a renewal by it. If alone is set, it waits
// for all other messages, so that none can overtake it. After [errSpent] the place can
// still be used for a handshake.
func (n *numbers) reserve(ctx context.Context, serial int64, alone bool) (*number, error) {
	if err := n.begin(ctx); err != nil {
		return nil, err
	}
	k := &number{serial: serial, alone: alone, turn: true}
	err := n.room(ctx, k, n.expect)
	if err != nil && err != errSpent {
		n.settle(k, unsent)
		return nil, err
	}
	return k, err
}

// draw gets the id, for the session that the message uses.
func (n *numbers) draw(ctx context.Context, k *number, serial int64, count func(context.Context, int64) (int64, error)) (err error) {
	k.serial = serial
	if k.id, err = count(ctx, serial); err != nil {
		return fmt.Errorf("msl: count non-replayable id: %w", err)
	}
	n.mu.Lock()
	n.last = number{serial: serial, id: k.id}
	n.mu.Unlock()
	if err := n.room(ctx, k, n.enter); err != nil || k.alone {
		return err
	}
	n.end(k)
	return nil
}

// room waits until try succeeds.
func (n *numbers) room(ctx context.Context, k *number, try func(*number) (time.Duration, error)) error {
	for {
		n.mu.Lock()
		changed := n.changed
		wait, err := try(k)
		n.mu.Unlock()
		if wait == 0 || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-time.After(wait):
		case <-ctx.Done():
			return waited(ctx)
		}
	}
}

func (n *numbers) begin(ctx context.Context) error {
	select {
	case n.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return waited(ctx)
	}
}

func (n *numbers) end(k *number) {
	k.turn = false
	<-n.turn
}

func waited(ctx context.Context) error {
	return fmt.Errorf("msl: wait for other non-replayable messages: %w", ctx.Err())
}

// expect judges the id to be drawn next.
func (n *numbers) expect(k *number) (wait time.Duration, err error) {
	if n.last.serial != k.serial {
		return 0, nil // none drawn yet in a new session
	}
	k.id = next(n.last.id)
	return n.judge(k)
}

// enter puts an id under way, if allowed.
func (n *numbers) enter(k *number) (wait time.Duration, err error) {
	if wait, err = n.judge(k); wait == 0 && err == nil {
		n.forgetSessions(k.serial)
		n.underWay[k] = true
	}
	return wait, err
}

// judge returns 0 if an id may be used now, else how long to wait at most.
func (n *numbers) judge(k *number) (wait time.Duration, err error) {
	k.since = time.Now()
	hope, blocked := time.Duration(0), false
	wait = numberPatience
	for other := range n.underWay {
		if other.serial != k.serial {
			continue
		}
		live, left := other.fate != gone, numberPatience-k.since.Sub(other.since)
		blocks := other.id > k.id || k.id >= other.id+idSpread || k.alone && live
		blocked = blocked || blocks
		if live {
			hope = max(hope, left) // its answer may show that the lost ids were overtaken
		}
		if live && blocks {
			wait = min(wait, left)
		}
	}
	switch wait = min(wait, hope); {
	case !blocked:
		return 0, nil
	case wait <= 0: // waited for nothing
		return 0, errSpent
	}
	return wait, nil
}

// forgetSessions drops the lost ids of sessions that were replaced.
func (n *numbers) forgetSessions(serial int64) {
	maps.DeleteFunc(n.underWay, func(k *number, _ bool) bool { return k.serial != serial && k.fate == gone })
}

// settle notes the fate of an id.
func (n *numbers) settle(k *number, fate fate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if k.fate = fate; fate != gone {
		delete(n.underWay, k)
	}
	if fate == seen {
		maps.DeleteFunc(n.underWay, func(other *number, _ bool) bool {
			return other.serial == k.serial && other.id < k.id && other.fate == gone
		})
	}
	if k.turn {
		n.end(k)
	}
	close(n.changed)
	n.changed = make(chan struct{})
}

// Numbering is the part of a request that concerns the id of its next message.
type numbering struct {
	number    *number // nil if the message needs none
	fate      fate    // of the last message sent
	overtaken int     // how many times an id came too late
}

// reserve gets a place for the non-replayable id of the next message. If there is none,
// that message asks for a new session instead.
func (n *numbering) reserve(ctx context.Context, c *Client) (err error) {
	serial := int64(Unbound)
	if mt := c.master(); mt != nil {
		serial = mt.SerialNumber
	}
	n.number, err = c.numbers.reserve(ctx, serial, n.overtaken > 1)
	if err == errSpent {
		n.number.spent, err = true, nil
	}
	return err
}

// spent reports whether a master token belongs to a session that has run out of ids.
func (n *numbering) spent(t *MasterToken) bool {
	return t != nil && n.number != nil && n.number.spent && n.number.serial == t.SerialNumber
}

// sent records the outcome of a message by the error that ended its exchange, and
// returns that error. proven is the error answer if it was authenticated, and well is the
// fate without an error.
func (n *numbering) sent(err error, proven *PeerError, well fate) error {
	var answer *PeerError
	var dial *net.OpError
	switch {
	case err == nil:
		n.fate = well
	case errors.As(err, &answer) && answer == proven && answer.Response == Replayed:
		n.fate = seen
	case errors.As(err, &answer) && answer == proven:
		n.fate = answered
	case errors.As(err, &dial) && dial.Op == "dial" && !errors.Is(err, keystore.ErrUnavailable): // not of a key store behind a socket
		n.fate = unsent
	default:
		n.fate = gone
	}
	return err
}

// settle ends the use of the id.
func (n *numbering) settle(c *Client) {
	if n.number != nil {
		c.numbers.settle(n.number, n.fate)
	}
	n.number, n.fate = nil, unsent
}
