package msl

import (
	"testing"
	"time"
)

// A flatEntity has only properties.
type flatEntity struct {
	LocalEntity
	encrypts, authenticates bool
}

func (e flatEntity) Encrypts() bool      { return e.encrypts }
func (e flatEntity) Authenticates() bool { return e.authenticates }

// TestRenewalNeed lists what makes a message ask for tokens: it must, even if another message
// is doing so, or it may, if no other is.
func TestRenewalNeed(t *testing.T) {
	now := time.Unix(1700000000, 0)
	holds := func(window, expiration time.Duration, users map[string]time.Duration) *tokens {
		mt := &MasterToken{RenewalWindow: now.Add(window), Expiration: now.Add(expiration), SerialNumber: 7}
		held := &tokens{session: &holding{token: mt}, users: map[string]*UserIDToken{}}
		for name, window := range users {
			held.users[name] = &UserIDToken{RenewalWindow: now.Add(window), Expiration: now.Add(time.Hour), MasterToken: 7}
		}
		return held
	}
	nothing, valid := &tokens{}, holds(1, 2, nil)
	inWindow, expired := holds(0, 1, nil), holds(-1, 0, nil)
	ofUser := func(window time.Duration) *tokens { return holds(1, 2, map[string]time.Duration{"u": window}) }
	both, signs, encrypts, none := flatEntity{nil, true, true}, flatEntity{nil, false, true}, flatEntity{nil, true, false}, flatEntity{}
	for _, c := range []struct {
		name      string
		req       Request
		entity    flatEntity
		held      *tokens
		unknown   bool // the issuer's clock
		forced    bool
		must, may bool
	}{
		{name: "nothing held", entity: none, held: nothing, may: true},
		{name: "valid", entity: none, held: valid},
		{name: "valid, clock unknown", entity: none, held: valid, unknown: true, may: true},
		{name: "in its window", entity: none, held: inWindow, may: true},
		{name: "expired", entity: none, held: expired, must: true, may: true},
		{name: "expired, clock unknown", entity: none, held: expired, unknown: true, may: true},
		{name: "forced", entity: none, held: valid, forced: true, must: true},
		{name: "encryption", req: Request{Encrypted: true}, entity: signs, held: nothing, must: true, may: true},
		{name: "encryption of its own", req: Request{Encrypted: true}, entity: encrypts, held: nothing, may: true},
		{name: "encryption by the session", req: Request{Encrypted: true}, entity: none, held: valid},
		{name: "integrity", req: Request{Authenticated: true}, entity: encrypts, held: nothing, must: true, may: true},
		{name: "integrity of its own", req: Request{Authenticated: true}, entity: signs, held: nothing, may: true},
		{name: "integrity by the session", req: Request{Authenticated: true}, entity: none, held: valid},
		{name: "non-replayable", req: Request{NonReplayable: true}, entity: both, held: nothing, must: true, may: true},
		{name: "non-replayable in the session", req: Request{NonReplayable: true}, entity: none, held: valid},
		{name: "user that nothing hides", req: Request{User: "u"}, entity: signs, held: nothing, must: true, may: true},
		{name: "user that nothing protects", req: Request{User: "u"}, entity: encrypts, held: nothing, must: true, may: true},
		{name: "hidden user", req: Request{User: "u"}, entity: both, held: nothing, may: true},
		{name: "user in the session", req: Request{User: "u"}, entity: none, held: valid, may: true},
		{name: "user with a token", req: Request{User: "u"}, entity: none, held: ofUser(1)},
		{name: "user with a token in its window", req: Request{User: "u"}, entity: none, held: ofUser(0), may: true},
		{name: "another user's token in its window", req: Request{}, entity: none, held: ofUser(0)},
		{name: "tokens", req: Request{RequestTokens: true}, entity: none, held: nothing, must: true, may: true},
		{name: "tokens that are held", req: Request{RequestTokens: true}, entity: none, held: valid},
		{name: "tokens of a user", req: Request{RequestTokens: true, User: "u"}, entity: none, held: valid, must: true, may: true},
		{name: "tokens of a user that are held", req: Request{RequestTokens: true, User: "u"}, entity: none, held: ofUser(1)},
	} {
		if got := renewalNeed(&c.req, c.entity, c.held, c.forced, !c.unknown, now); got != (need{c.must, c.may}) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
