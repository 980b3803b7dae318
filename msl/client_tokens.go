package msl

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// tokens are what a client holds at one moment. A set is never changed, only replaced.
type tokens struct {
	session  *holding // nil without a master token
	users    map[string]*UserIDToken
	services []*ServiceToken
}

// A holding is a master token that the client holds, with its keys and the data that
// restores them.
type holding struct {
	token    *MasterToken
	keys     *SessionKeys
	exchange string
	keep     []byte
	giver    giver // the peer that delivered it to this process, or none
}

func (t *tokens) master() *MasterToken {
	if t.session == nil {
		return nil
	}
	return t.session.token
}

// user is the token of a local user, if it is bound to the master token.
func (t *tokens) user(name string) *UserIDToken {
	uit := t.users[name]
	if uit == nil || uit.boundTo(t.master()) != nil {
		return nil
	}
	return uit
}

// servicesFor are the service tokens to send with a user ID token, or without one.
func (t *tokens) servicesFor(uit *UserIDToken) (list []*ServiceToken) {
	for _, s := range t.services {
		if s.boundTo(t.master(), uit) == nil {
			list = append(list, s)
		}
	}
	return list
}

// withMaster replaces the master token. A renewal keeps its serial number, and therefore
// everything bound to it.
func (t *tokens) withMaster(h *holding) *tokens {
	n := &tokens{session: h, users: maps.Clone(t.users), services: slices.Clone(t.services)}
	return n.dropUnbound()
}

// withUser replaces the token of a local user, or removes it.
func (t *tokens) withUser(name string, uit *UserIDToken) *tokens {
	n := &tokens{session: t.session, users: maps.Clone(t.users), services: slices.Clone(t.services)}
	if uit == nil {
		delete(n.users, name)
		return n.dropUnbound()
	}
	if n.users == nil {
		n.users = map[string]*UserIDToken{}
	}
	n.users[name] = uit
	return n.dropUnbound()
}

// withService adds, replaces or deletes a token.
func (t *tokens) withService(s *ServiceToken) *tokens {
	n := &tokens{session: t.session, users: t.users, services: slices.Clone(t.services)}
	if s.Data != nil && len(s.Data) == 0 {
		n.services = slices.DeleteFunc(n.services, s.sameAs)
	} else {
		n.services = putServiceToken(n.services, s)
	}
	return n
}

// withDelivered adds what an answer for a user brings, as far as it is bound to the
// tokens then held.
func (t *tokens) withDelivered(fresh *holding, user string, uit *UserIDToken, services []*ServiceToken) *tokens {
	if fresh != nil {
		t = t.withMaster(fresh)
	}
	if uit != nil && user != "" && uit.boundTo(t.master()) == nil {
		t = t.withUser(user, uit)
	}
	for _, s := range services {
		if s.boundTo(t.master(), t.user(user)) == nil {
			t = t.withService(s)
		}
	}
	return t
}

// dropUnbound forgets what was bound to tokens that are gone.
func (t *tokens) dropUnbound() *tokens {
	maps.DeleteFunc(t.users, func(_ string, uit *UserIDToken) bool { return uit.boundTo(t.master()) != nil })
	t.services = slices.DeleteFunc(t.services, func(s *ServiceToken) bool {
		if s.UserIDToken == Unbound {
			return s.boundTo(t.master(), nil) != nil
		}
		for _, uit := range t.users {
			if s.boundTo(t.master(), uit) == nil {
				return false
			}
		}
		return true
	})
	return t
}

func (t *tokens) record() ClientRecord {
	r := ClientRecord{}
	if t.session != nil && t.session.keep != nil {
		r.MasterToken, r.KeyExchange, r.Keep = t.session.token.Bytes(), t.session.exchange, t.session.keep
		for name, uit := range t.users {
			if r.UserIDTokens == nil {
				r.UserIDTokens = map[string][]byte{}
			}
			r.UserIDTokens[name] = uit.Bytes()
		}
	}
	for _, s := range t.services {
		if s.MasterToken == Unbound || r.MasterToken != nil {
			r.ServiceTokens = append(r.ServiceTokens, s.sealed.raw)
		}
	}
	return r
}

// restore makes tokens from a record. If the keys cannot be restored, the session ends,
// but not the client; a device that does not answer is an error.
func (c *Client) restore(ctx context.Context, r ClientRecord) (*tokens, error) {
	t := &tokens{}
	if r.MasterToken == nil {
		return t.withServices(r.ServiceTokens)
	}
	token, err := ParseMasterToken(r.MasterToken)
	if err != nil {
		return nil, err
	}
	keys, err := c.resume(ctx, r)
	if err != nil {
		return nil, err
	}
	if keys == nil { // unbound tokens stay
		return t.withServices(r.ServiceTokens)
	}
	t.session = &holding{token: token, keys: keys, exchange: r.KeyExchange, keep: r.Keep}
	for name, b := range r.UserIDTokens {
		uit, err := ParseUserIDToken(b)
		if err != nil {
			keys.Release()
			return nil, err
		}
		if user := CanonicalName(name); user == name || r.UserIDTokens[user] == nil {
			t = t.withUser(user, uit)
		}
	}
	return t.withServices(r.ServiceTokens)
}

// resume restores the keys of a session with the exchange that made them. It returns no
// keys and no error if the session has ended.
func (c *Client) resume(ctx context.Context, r ClientRecord) (*SessionKeys, error) {
	for _, x := range permitted(c.Custody, c.KeyExchanges) {
		if x.Scheme() != r.KeyExchange { // one scheme may be configured in several ways
			continue
		}
		keys, err := x.Resume(ctx, r.Keep)
		if err == nil || deviceFailed(err) {
			return keys, err
		}
	}
	return nil, nil
}

// withServices adds the stored service tokens whose master token and user ID token are
// held.
func (t *tokens) withServices(list [][]byte) (*tokens, error) {
	for _, b := range list {
		o, err := wire.Parse(b, wire.Limits{})
		if err != nil {
			return nil, fmt.Errorf("msl: stored service token: %w", err)
		}
		s, err := parseServiceToken(o, nil, nil, t.master(), t.anyUser(o)) // they are only sent again
		if err != nil {
			continue // its master token or user ID token is gone
		}
		t = t.withService(s)
	}
	return t, nil
}

// anyUser finds the user ID token that a stored service token is bound to.
func (t *tokens) anyUser(o wire.Object) *UserIDToken {
	serial, err := userSerial(o)
	if err != nil {
		return nil
	}
	for _, uit := range t.users {
		if uit.SerialNumber == serial {
			return uit
		}
	}
	return nil
}

// userSerial is the serial number of the user ID token that a service token is bound to,
// or Unbound.
func userSerial(o wire.Object) (int64, error) {
	const op = "stored service token"
	sealed, err := parseSignedToken(o, op, ErrServiceTokenTokenDataMissing)
	if err != nil {
		return 0, err
	}
	data, err := sealed.parseData()
	if err != nil {
		return 0, fail(ErrMSLParseError, op, err)
	}
	f := wire.FieldsOf(data)
	serial := f.OptionalInt("uitserialnumber", Unbound)
	return serial, malformed(f, op)
}

// HeldTokens are the tokens that a client holds at one moment; missing ones are nil.
type HeldTokens struct {
	MasterToken *MasterToken
	Keys        *SessionKeys // of the master token
	UserIDToken *UserIDToken
}

// HeldTokens returns the client's master token, its session keys and the user ID
// token of a local user. The caller releases the keys.
func (c *Client) HeldTokens(ctx context.Context, user string) (HeldTokens, error) {
	if err := c.load(ctx); err != nil {
		return HeldTokens{}, err
	}
	t, _, _, err := c.snapshot()
	if err != nil {
		return HeldTokens{}, err
	}
	held := HeldTokens{MasterToken: t.master(), UserIDToken: t.user(CanonicalName(user))}
	if t.session != nil {
		held.Keys = t.session.keys
	}
	return held, nil
}

// changeTokens adds the application's changes to a request, and keeps the resulting
// tokens: the peer need not send them back.
func (a *attempt) changeTokens(ctx context.Context, h *header) error {
	if len(a.req.ServiceTokens) == 0 {
		return nil
	}
	var fresh []*ServiceToken
	for _, c := range a.req.ServiceTokens {
		t, err := c.token(a.client.ServiceTokens, a.client.Rand, a.tokens.master(), a.user, a.req.compression(h.capabilities))
		if err != nil {
			return err
		}
		fresh = append(fresh, t)
	}
	h.serviceTokens = slices.Clone(h.serviceTokens)
	for _, t := range fresh {
		h.serviceTokens = putServiceToken(h.serviceTokens, t)
	}
	if err := a.limits.carries(h.serviceTokens); err != nil {
		return fail(ErrMSLEncodeError, "service tokens", err)
	}
	return a.lease.update(ctx, func(held *tokens) *tokens {
		for _, t := range fresh {
			held = held.withService(t)
		}
		return held
	})
}
