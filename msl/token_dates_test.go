package msl_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// datedState is a state that knows since when tokens count, and records the calls of
// Expect.
type datedState struct {
	*msl.MemoryState
	entity, user time.Time
	until        time.Time
	sick         error
}

func (d *datedState) CountSince(context.Context, string, string) (time.Time, time.Time, error) {
	return d.entity, d.user, d.sick
}

func (d *datedState) Expect(_ context.Context, until time.Time) error {
	if until.After(d.until) {
		d.until = until
	}
	return nil
}

func serialOf(t *testing.T, c *msl.Client) int64 {
	t.Helper()
	held, err := c.HeldTokens(context.Background(), "")
	if err != nil || held.MasterToken == nil {
		t.Fatalf("no master token: %v", err)
	}
	held.Keys.Release()
	return held.MasterToken.SerialNumber
}

// TestRenewalEnds renews a token as long after its expiration as the issuer
// allows, and not a second longer: then the entity has to authenticate itself again.
func TestRenewalEnds(t *testing.T) {
	for name, c := range map[string]struct {
		setting, allowed time.Duration
	}{
		"default": {0, 30 * 24 * time.Hour},
		"set":     {time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			n.server.Issuer.RenewExpired = c.setting
			state := &datedState{MemoryState: n.state}
			n.server.State = state
			client := n.pskClient("device")
			mustSend(t, client, secret("first"), 2)
			serial, ends := serialOf(t, client), n.now.Add(24*time.Hour+c.allowed)
			if state.until.Before(ends) || state.until.After(ends.Add(time.Minute)) {
				t.Errorf("the state is told %v, want %v", state.until, ends)
			}
			n.now = ends
			mustSend(t, client, secret("at the end"), 2)
			if serialOf(t, client) != serial {
				t.Error("the token was not renewed")
			}
			n.now = n.now.Add(24*time.Hour + c.allowed + time.Second)
			mustSend(t, client, secret("after it"), 4)
			if serialOf(t, client) == serial {
				t.Error("a token was renewed that expired too long ago")
			}
		})
	}
}

// TestUserRenewalEnds renews an expired user ID token as long after its expiration as
// the issuer allows, and for ever without a setting. After that the user logs in again.
func TestUserRenewalEnds(t *testing.T) {
	const life, month = 2 * time.Hour, 30 * 24 * time.Hour
	for name, c := range map[string]struct {
		allowed, later time.Duration
		messages       int
	}{
		"no setting":    {0, life + month, 2},
		"not expired":   {time.Hour, life, 2},
		"in time":       {time.Hour, life + time.Hour, 2},
		"a second late": {time.Hour, life + time.Hour + time.Second, 4},
	} {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			i := n.server.Issuer
			i.Lifetime, i.UserRenewAfter, i.UserLifetime, i.UserRenewExpired = 10*month, time.Hour, life, c.allowed
			client := n.pskClient("device")
			withUser := secret("hello")
			withUser.User = "user@example.com"
			mustSend(t, client, withUser, 2)
			before := client.Held().UserIDTokens[withUser.User]
			if got := before.Expiration.Sub(before.RenewalWindow); got != time.Hour {
				t.Errorf("renewable %v before it expires", got)
			}
			n.now = n.now.Add(c.later)
			mustSend(t, client, withUser, c.messages)
			after := client.Held().UserIDTokens[withUser.User]
			if same := after.SerialNumber == before.SerialNumber; same != (c.messages == 2) || !after.Expiration.Equal(n.now.Add(life)) {
				t.Errorf("renewed %v, until %v", same, after.Expiration)
			}
		})
	}
}

// TestTokensCountSince moves the time since when tokens count: older ones belong to an
// earlier owner of the name.
func TestTokensCountSince(t *testing.T) {
	n := softNetwork(t)
	state := &datedState{MemoryState: n.state}
	n.server.State = state
	c := n.pskClient("device")
	withUser := secret("hello")
	withUser.User = "user@example.com"
	asked := 0
	c.UserAuth = func(context.Context, string, msl.ResponseCode) (*msl.UserAuthData, error) {
		asked++
		return userauth.EmailPasswordData("user@example.com", []byte("secret")), nil
	}
	mustSend(t, c, withUser, 2)
	serial, first := serialOf(t, c), asked
	state.entity, state.user = n.now, n.now
	mustSend(t, c, withUser, 2)
	if serialOf(t, c) != serial || asked != first {
		t.Error("tokens of the same second do not count")
	}
	n.now = n.now.Add(time.Minute)
	state.user = n.now
	mustSend(t, c, withUser, 4)
	if serialOf(t, c) != serial || asked == first {
		t.Error("an older user ID token counts")
	}
	n.now = n.now.Add(time.Minute)
	state.entity = n.now
	mustSend(t, c, secret("without a user"), 4)
	if serialOf(t, c) == serial {
		t.Error("an older master token counts")
	}
	state.sick = errors.New("no answer")
	if _, _, err := send(t, c, secret("x")); !errors.Is(err, msl.ErrInternalException) {
		t.Errorf("a state that does not answer: %v", err)
	}
}

// TestTokensOfASlowClock has a server whose clock is ahead end the tokens of names: those
// that another server issues then count at once.
func TestTokensOfASlowClock(t *testing.T) {
	for name, c := range map[string]struct{ entity, user, also time.Duration }{
		"also":   {also: time.Minute},
		"later":  {entity: time.Minute, also: 30 * time.Second},
		"entity": {entity: 30 * time.Second},
		"user":   {user: 30 * time.Second},
		"both":   {entity: 30 * time.Second, user: time.Minute},
		"shared": {entity: 11 * time.Minute, user: 6 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			state := &datedState{MemoryState: n.state, entity: n.now.Add(c.entity), user: n.now.Add(c.user)}
			n.server.State = state
			n.server.CountSince = func(context.Context, string) (time.Time, error) { return n.now.Add(c.also), nil }
			client := n.pskClient("device")
			withUser := secret("hello")
			withUser.User = "user@example.com"
			mustSend(t, client, withUser, 2)
			serial := serialOf(t, client)
			mustSend(t, client, withUser, 2)
			mustSend(t, client, withUser, 2)
			if serialOf(t, client) != serial {
				t.Error("the first token did not count")
			}
			if issued := n.server.Issuer.Issued(client.Held().MasterToken).Sub(n.now); issued != max(c.entity, c.also) {
				t.Errorf("issued %v ahead of the clock", issued)
			}
			if least := n.now.Add(24*time.Hour + max(c.entity, c.also)); state.until.Before(least) {
				t.Errorf("the state is told %v, want at least %v", state.until, least)
			}
		})
	}
}

// TestUserIDTokenCountsSince is the same for a user who is proven by a token of an
// earlier session.
func TestUserIDTokenCountsSince(t *testing.T) {
	issuer := newRecorded(t).server.Issuer
	state := &datedState{}
	scheme := &userauth.UserIDToken{Issuer: issuer, Dates: state}
	data := encode(object{"mastertoken": recordedToken(nil), "useridtoken": recordedUser(nil)})
	token, err := msl.ParseUserIDToken(encode(recordedUser(nil)))
	if err != nil {
		t.Fatal(err)
	}
	issued := issuer.IssuedUser(token)
	for _, c := range []struct {
		since time.Time
		sick  error
		want  error
	}{
		{since: time.Time{}},
		{since: issued},
		{since: issued.Add(time.Second), want: msl.ErrUserIDTokenRevoked},
		{sick: errors.New("no answer"), want: msl.ErrUserAuthUserIDTokenRevokeCheckError},
	} {
		state.user, state.sick = c.since, c.sick
		user, err := scheme.Authenticate(t.Context(), "client1", data)
		if !errors.Is(err, c.want) || (c.want == nil) != (user != "") {
			t.Errorf("%v: user %q, %v, want %v", c.since, user, err, c.want)
		}
	}
}
