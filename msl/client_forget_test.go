package msl_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// A recordState keeps a client's record in memory, as a file would.
type recordState struct {
	mu     sync.Mutex
	record msl.ClientRecord
	ids    map[int64]int64
	sick   error
}

func (s *recordState) Load(context.Context) (msl.ClientRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record, s.sick
}

func (s *recordState) Save(_ context.Context, r msl.ClientRecord) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sick != nil {
		return s.sick
	}
	s.record = r
	return nil
}

func (s *recordState) NextID(_ context.Context, serial int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		s.ids = map[int64]int64{}
	}
	s.ids[serial]++
	return s.ids[serial], nil
}

// A held client has a session and two users with service tokens of each kind.
type heldClient struct {
	*network
	client *msl.Client
	state  *recordState
	device *soft.Store
	logins int
}

const (
	ada = "user@example.com"
	bob = "bob@example.com"
)

func forUser(user string) *msl.Request {
	r := secret("hello")
	r.User = user
	return r
}

func newHeld(t *testing.T) *heldClient {
	h := &heldClient{network: softNetwork(t), state: &recordState{}, device: soft.New()}
	t.Cleanup(func() { h.device.Close() })
	h.server.Users = []msl.UserScheme{&userauth.EmailPassword{Verify: func(_ context.Context, email string, _ []byte) (string, error) { return email, nil }}}
	h.client = h.rsaClient("device")
	h.client.State, h.client.ServiceTokens = h.state, h.server.ServiceTokens
	h.client.KeyExchanges = []msl.Offerer{wrappedWith(t, h.device)}
	h.client.UserAuth = func(_ context.Context, user string, _ msl.ResponseCode) (*msl.UserAuthData, error) {
		h.logins++
		return userauth.EmailPasswordData(user, []byte("x")), nil
	}
	return h
}

// fill makes the tokens.
func (h *heldClient) fill(t *testing.T) {
	t.Helper()
	mustSend(t, h.client, forUser(ada), 4)
	mustSend(t, h.client, forUser(bob), 2)
	for user, name := range map[string]string{ada: "ada", bob: "bob"} {
		r := forUser(user)
		r.ServiceTokens = []msl.TokenChange{{Name: name, Data: []byte("1"), Bind: msl.BindUser}, {Name: "all", Data: []byte("2")}, {Name: "entity", Data: []byte("3"), Bind: msl.BindEntity}}
		mustSend(t, h.client, r, 2)
	}
	h.logins = 0
}

// mustHold compares what the client and its state have.
func (h *heldClient) mustHold(t *testing.T, session bool, users, services int) {
	t.Helper()
	held, r := h.client.Held(), h.state.record
	if (held.MasterToken != nil) != session || len(held.UserIDTokens) != users || len(held.ServiceTokens) != services {
		t.Errorf("the client holds a session: %v, %d users, %d service tokens", held.MasterToken != nil, len(held.UserIDTokens), len(held.ServiceTokens))
	}
	if (r.MasterToken != nil) != session || len(r.UserIDTokens) != users || len(r.ServiceTokens) != services || (r.Keep != nil) != session {
		t.Errorf("the state holds a session: %v, %d users, %d service tokens", r.MasterToken != nil, len(r.UserIDTokens), len(r.ServiceTokens))
	}
}

func TestLogout(t *testing.T) {
	h := newHeld(t)
	h.fill(t)
	h.mustHold(t, true, 2, 4)
	serial := serialOf(t, h.client)
	for range 2 {
		if err := errors.Join(h.client.Logout(t.Context(), ada), h.client.Logout(t.Context(), "nobody")); err != nil {
			t.Fatal(err)
		}
		h.mustHold(t, true, 1, 3)
	}
	mustSend(t, h.client, forUser(bob), 2)
	if h.logins != 0 {
		t.Error("the other user is asked to log in")
	}
	mustSend(t, h.client, forUser(ada), 2)
	if h.logins != 1 || serialOf(t, h.client) != serial {
		t.Errorf("%d log-ins, another session: %v", h.logins, serialOf(t, h.client) != serial)
	}
	h.mustHold(t, true, 2, 3)
}

func TestForget(t *testing.T) {
	h := newHeld(t)
	h.fill(t)
	record, serial := h.state.record, serialOf(t, h.client)
	one := secret("hello")
	one.NonReplayable = true
	mustSend(t, h.client, one, 2)
	for range 2 {
		if err := h.client.Forget(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.mustHold(t, false, 0, 0)
	}
	if n, _ := h.device.Live(); n != 0 {
		t.Errorf("%d keys are left", n)
	}
	if h.state.ids[serial] != 1 {
		t.Errorf("ids %v", h.state.ids)
	}
	mustSend(t, h.client, forUser(ada), 4)
	if serialOf(t, h.client) == serial {
		t.Error("the session goes on")
	}

	// A copy of the record does not begin to count anew.
	h.client.Close()
	h.state.record = record
	mustSend(t, h.client, one, 2)
	if serialOf(t, h.client) != serial || h.state.ids[serial] != 2 {
		t.Errorf("ids %v", h.state.ids)
	}
}

// TestForgetUnloaded drops tokens of a state whose keys cannot be made again.
func TestForgetUnloaded(t *testing.T) {
	h := newHeld(t)
	h.fill(t)
	h.state.record.Anchor = []byte("anchor")
	h.client.Close()
	bare := &msl.Client{State: h.state}
	if err := bare.Logout(t.Context(), ada); err != nil {
		t.Fatal(err)
	}
	mustSend(t, h.client, forUser(bob), 2)
	h.mustHold(t, true, 1, 3)
	h.client.Close()
	h.state.record.Anchor = []byte("anchor")
	if err := bare.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := h.state.record; r.MasterToken != nil || r.UserIDTokens != nil || r.ServiceTokens != nil || r.Keep != nil || string(r.Anchor) != "anchor" {
		t.Errorf("%+v", r)
	}
	if err := errors.Join(new(msl.Client).Forget(t.Context()), new(msl.Client).Logout(t.Context(), ada)); err != nil {
		t.Error(err)
	}
}

// TestForgetFails says so, and can be tried again.
func TestForgetFails(t *testing.T) {
	for _, loaded := range []bool{true, false} {
		h := newHeld(t)
		h.fill(t)
		if !loaded {
			h.client.Close()
		}
		full := errors.New("disk full")
		h.state.sick = full
		if err := h.client.Logout(t.Context(), ada); !errors.Is(err, full) {
			t.Error(err)
		}
		if err := h.client.Forget(t.Context()); !errors.Is(err, full) || h.state.record.MasterToken == nil {
			t.Error(err)
		}
		h.state.sick = nil
		if err := h.client.Forget(t.Context()); err != nil || h.state.record.MasterToken != nil {
			t.Error(err)
		}
	}
}

// TestForgetMeanwhile forgets while a message is under way: its answer is read, and
// brings nothing back. A request that needs another message ends.
func TestForgetMeanwhile(t *testing.T) {
	skipWithRace(t)
	logout := func(h *heldClient) error { return h.client.Logout(context.Background(), ada) }
	forget := func(h *heldClient) error { return h.client.Forget(context.Background()) }
	for name, c := range map[string]struct {
		drop     func(*heldClient) error
		at       int // message of the request
		user     string
		want     error
		session  bool
		users    int
		services int
	}{
		"log-out in the handshake":          {logout, 1, ada, msl.ErrForgotten, true, 0, 0},
		"log-out of another":                {logout, 1, bob, nil, true, 1, 0},
		"log-out while the user logs in":    {logout, 2, ada, nil, true, 0, 0},
		"forgotten in the handshake":        {forget, 1, ada, msl.ErrForgotten, false, 0, 0},
		"forgotten while the user logs in":  {forget, 2, ada, nil, false, 0, 0},
		"forgotten without a user":          {forget, 2, "", nil, false, 0, 0},
		"forgotten in a lone key exchange":  {forget, 1, "", msl.ErrForgotten, false, 0, 0},
		"another user's log-out in the end": {logout, 2, "", nil, true, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHeld(t)
			sent := 0
			h.intercept = func(message []byte) []byte {
				if sent++; sent == c.at {
					if err := c.drop(h); err != nil {
						t.Error(err)
					}
				}
				return message
			}
			_, data, err := send(t, h.client, forUser(c.user))
			if !errors.Is(err, c.want) || err == nil && data != "hello" {
				t.Errorf("%q, %v, want %v", data, err, c.want)
			}
			h.mustHold(t, c.session, c.users, c.services)
			if n, _ := h.device.Live(); !c.session && n != 0 {
				t.Errorf("%d keys are left", n)
			}
			h.intercept = nil
			if _, data, err := send(t, h.client, forUser(ada)); err != nil || data != "hello" {
				t.Errorf("afterwards: %q, %v", data, err)
			}
			h.mustHold(t, true, 1+c.users, 0)
		})
	}
}

// TestForgetAnswer reads an answer that began before all was forgotten.
func TestForgetAnswer(t *testing.T) {
	h := newHeld(t)
	h.fill(t)
	answer, err := h.client.Do(t.Context(), forUser(ada))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.client.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil || string(data) != "hello" {
		t.Errorf("%q, %v", data, err)
	}
	if n, _ := h.device.Live(); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

// TestForgetConcurrently sends and forgets at the same time: every request is answered
// or says why not, and in the end nothing is left.
func TestForgetConcurrently(t *testing.T) {
	h := newHeld(t)
	h.client.UserAuth = func(_ context.Context, user string, _ msl.ResponseCode) (*msl.UserAuthData, error) {
		return userauth.EmailPasswordData(user, []byte("x")), nil
	}
	var wait sync.WaitGroup
	for i := range 6 {
		wait.Go(func() {
			for range 10 {
				r := forUser([]string{ada, bob, ""}[i%3])
				r.NonReplayable = i == 0
				if _, data, err := send(t, h.client, r); err != nil && !errors.Is(err, msl.ErrForgotten) || err == nil && data != "hello" {
					t.Errorf("%q, %v", data, err)
				}
			}
		})
	}
	for range 2 {
		wait.Go(func() {
			for range 10 {
				if err := errors.Join(h.client.Logout(t.Context(), ada), h.client.Forget(t.Context())); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if err := h.client.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.mustHold(t, false, 0, 0)
	if n, _ := h.device.Live(); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}
