package msl

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// ErrForgotten says that the tokens of a request were forgotten, or its user logged out,
// before it was answered. The request ends, since another message would bring new tokens.
// The peer may have acted on it only if its answer was lost.
var ErrForgotten = errors.New("msl: the tokens of this request were forgotten meanwhile")

// Logout forgets the user ID token of a local user and the service tokens bound to it, in
// the state as well. Such tokens in answers under way are not kept. A request for the
// user that needs another message fails with [ErrForgotten]; later requests authenticate
// the user again. The protocol has no message that informs the peer: there, anyone who
// copied the token can use it until it is revoked. Logout works without the session keys.
// A user without a token is not an error.
func (c *Client) Logout(ctx context.Context, user string) error {
	user = CanonicalName(user)
	return c.drop(ctx, func() { c.departed.note(user) }, func(t *tokens) *tokens { return t.withUser(user, nil) },
		func(r ClientRecord) (ClientRecord, error) { return r.WithoutUser(user) })
}

// Forget forgets all tokens: the master token, whose session keys are destroyed once no
// answer under way needs them, the user ID tokens and all service tokens. It is durable,
// like Logout. The next request begins a new session. The counters of non-replayable ids
// stay, so that no id is reused should a token come back.
func (c *Client) Forget(ctx context.Context) error {
	return c.drop(ctx, func() { c.departed.noteAll() }, func(*tokens) *tokens { return &tokens{} },
		func(r ClientRecord) (ClientRecord, error) { return r.WithoutTokens(), nil })
}

// drop forgets tokens. Tokens that were not loaded are dropped from the state.
func (c *Client) drop(ctx context.Context, gone func(), change func(*tokens) *tokens, changeRecord func(ClientRecord) (ClientRecord, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	gone()
	if c.loaded {
		return c.change(ctx, change)
	}
	if c.State == nil {
		return nil
	}
	r, err := c.State.Load(ctx)
	if err != nil {
		return fmt.Errorf("msl: load client state: %w", err)
	}
	if r, err = changeRecord(r); err != nil {
		return err
	}
	if err := c.State.Save(ctx, r); err != nil {
		return fmt.Errorf("msl: save client state: %w", err)
	}
	return nil
}

// Departed records when each user of a client last logged out, and when the client forgot
// everything, as numbers that increase with each such event.
type departed struct {
	number int            // the last one
	all    int            // when everything was forgotten
	others int            // when a user no longer in users last logged out
	users  map[string]int // when each of the others did
}

// maxDeparted is how many users are tracked individually. Beyond it, requests under way
// for others may also end with [ErrForgotten].
const maxDeparted = 1000

func (d *departed) note(user string) {
	if len(d.users) >= maxDeparted {
		d.others, d.users = d.number, nil
	}
	if d.users == nil {
		d.users = map[string]int{}
	}
	d.number++
	d.users[user] = d.number
}

func (d *departed) noteAll() {
	d.number++
	d.all, d.users = d.number, nil
}

// A lease decides what an attempt may keep of the tokens it brings: none if everything
// was forgotten since it began, and none for its user if that user logged out.
type lease struct {
	client *Client
	user   string
	began  int // number of the last departure before it
}

// keeps reports whether tokens, and those of the user, may be kept. The client is locked.
func (l lease) keeps() (tokens, ofUser bool) {
	d := l.client.departed
	tokens = d.all <= l.began
	return tokens, tokens && (l.user == "" || max(d.others, d.users[l.user]) <= l.began)
}

// wanted reports whether another message may bring tokens.
func (l lease) wanted() bool {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	_, wanted := l.keeps()
	return wanted
}

// update changes the tokens of the client, unless they were forgotten in the meantime.
func (l lease) update(ctx context.Context, change func(*tokens) *tokens) error {
	return l.client.update(ctx, func(t *tokens) *tokens {
		if _, keeps := l.keeps(); !keeps {
			return t
		}
		return change(t)
	})
}

// WithoutTokens is the record of a client that forgot its tokens. Its anchor stays.
func (r ClientRecord) WithoutTokens() ClientRecord { return ClientRecord{Anchor: r.Anchor} }

// WithoutUser is the record without the user ID token of a local user, and without the
// service tokens bound to it.
func (r ClientRecord) WithoutUser(user string) (ClientRecord, error) {
	users, serials := map[string][]byte{}, map[int64]bool{}
	for name, b := range r.UserIDTokens {
		if !sameName(name, user) {
			users[name] = b
			continue
		}
		uit, err := ParseUserIDToken(b)
		if err != nil {
			return r, err
		}
		serials[uit.SerialNumber] = true
	}
	if len(serials) == 0 {
		return r, nil
	}
	r.UserIDTokens = users
	r.ServiceTokens = slices.DeleteFunc(slices.Clone(r.ServiceTokens), func(b []byte) bool {
		serial, err := userOfServiceToken(b)
		return err != nil || serials[serial]
	})
	return r, nil
}

// userOfServiceToken is the serial number of the user ID token that an encoded service
// token is bound to, or Unbound.
func userOfServiceToken(b []byte) (int64, error) {
	o, err := wire.Parse(b, wire.Limits{})
	if err != nil {
		return 0, fail(ErrMSLParseError, "stored service token", err)
	}
	return userSerial(o)
}
