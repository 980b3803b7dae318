package msl_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

func softNetwork(t testing.TB) *network {
	store := soft.New()
	t.Cleanup(func() { store.Close() })
	return newNetwork(t, store)
}

// mustSend fails the test unless the echo comes back within messages.
func mustSend(t testing.TB, c *msl.Client, req *msl.Request, messages int) *msl.Response {
	t.Helper()
	r, data, err := send(t, c, req)
	if err != nil {
		t.Fatal(err)
	}
	if data != readAll(t, must(req.Body())) {
		t.Fatalf("answer %q", data)
	}
	if r.Messages != messages {
		t.Errorf("took %d messages, want %d", r.Messages, messages)
	}
	return r
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestRenewal(t *testing.T) {
	for name, client := range map[string]func(*network) *msl.Client{
		"PSK": func(n *network) *msl.Client { return n.pskClient("device") },
		"RSA": func(n *network) *msl.Client { return n.rsaClient("device") },
	} {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			c := client(n)
			if _, _, err := send(t, c, secret("first")); err != nil {
				t.Fatal(err)
			}
			mustSend(t, c, secret("in the same session"), 2)
			n.now = n.now.Add(2 * time.Hour)
			if r := mustSend(t, c, secret("in the renewal window"), 2); r.KeyExchange == "" {
				t.Error("token was not renewed in its window")
			}
			n.now = n.now.Add(48 * time.Hour)
			if r := mustSend(t, c, secret("after expiration"), 2); r.KeyExchange == "" {
				t.Error("expired token was not renewed")
			}
		})
	}
}

// TestExpiredByServerClock has a client whose clock is behind: it learns of the
// expiration from the error and renews.
func TestExpiredByServerClock(t *testing.T) {
	n := softNetwork(t)
	c := n.pskClient("device")
	clientNow := n.now
	c.Time = func() time.Time { return clientNow }
	mustSend(t, c, secret("first"), 2)
	n.now = n.now.Add(48 * time.Hour)
	if r := mustSend(t, c, secret("second"), 4); r.KeyExchange == "" {
		t.Error("token was not renewed")
	}
	mustSend(t, c, secret("third"), 2)
}

// TestLostRenewal loses the answer that brings a renewed token, twice: the client
// asks again with the old one.
func TestLostRenewal(t *testing.T) {
	n := softNetwork(t)
	c := n.pskClient("device")
	mustSend(t, c, secret("first"), 2)
	n.now = n.now.Add(2 * time.Hour)
	lost := errors.New("answer lost")
	c.Transport = transportFunc(func(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
		if _, err := n.RoundTrip(ctx, write); err != nil {
			return nil, err
		}
		return nil, lost
	})
	for range 2 {
		if _, _, err := send(t, c, secret("lost")); !errors.Is(err, lost) {
			t.Fatalf("got %v", err)
		}
	}
	c.Transport = n
	if r := mustSend(t, c, secret("again"), 2); r.KeyExchange == "" {
		t.Error("token was not renewed")
	}
}

type transportFunc func(context.Context, func(io.Writer) error) (io.ReadCloser, error)

func (f transportFunc) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	return f(ctx, write)
}

func TestRecovery(t *testing.T) {
	skipWithRace(t)
	once := func(err error) msl.Handler {
		var calls atomic.Int32
		return func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			if calls.Add(1) == 1 {
				return err
			}
			return echo(ctx, w, m)
		}
	}
	for _, test := range []struct {
		name     string
		err      error
		messages int      // in all, or 0 if the error is final
		code     msl.Code // of a final error
	}{
		{"entity reauthentication", msl.ErrMasterTokenUntrusted, 4, 0},
		{"rejected entity", msl.ErrRejectEntity, 4, 0},
		{"user reauthentication", msl.ErrUserIDTokenRevoked, 4, 0},
		{"rejected user", msl.ErrRejectUser, 0, msl.ErrUserIDTokenRejectedByApp},
		{"key exchange required", msl.ErrResponseRequiresEncryption, 4, 0},
		{"expired", msl.ErrMessageExpired, 4, 0},
		{"replayed", msl.ErrMessageReplayed, 4, 0},
		{"entity data refused", msl.ErrX509CertExpired, 0, msl.ErrX509CertExpired},
		{"failure", msl.ErrEntityNotFound, 0, msl.ErrEntityNotFound},
		{"transient", errors.New("disk full"), 0, msl.ErrInternalException},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := softNetwork(t)
			c := n.pskClient("device")
			mustSend(t, c, secret("first"), 2)
			n.handler = once(test.err)
			if test.messages > 0 {
				mustSend(t, c, secret("second"), test.messages)
				mustSend(t, c, secret("third"), 2)
				return
			}
			_, _, err := send(t, c, secret("second"))
			var peer *msl.PeerError
			if !errors.As(err, &peer) && !strings.Contains(err.Error(), "no other password") {
				t.Fatalf("got %v", err)
			}
			if peer != nil && peer.Code != test.code {
				t.Errorf("got code %v, want %v", peer.Code, test.code)
			}
		})
	}
}

// TestFailedAfterRefusal loses the answer to a message that was sent again after a refusal:
// nobody knows whether the server acted on it, and the refusal must not say otherwise.
func TestFailedAfterRefusal(t *testing.T) {
	for _, refusal := range []msl.Code{msl.ErrMessageReplayed, msl.ErrMasterTokenSequenceNumberOutOfSync, msl.ErrUserIDTokenRevoked} {
		n := softNetwork(t)
		c := n.pskClient("device")
		mustSend(t, c, secret("first"), 2)
		n.handler = func(context.Context, *msl.ResponseWriter, *msl.Message) error { return refusal }
		lost := errors.New("the answer is lost")
		c.Transport = &losing{c.Transport, lost, 1}
		_, _, err := send(t, c, secret("second"))
		if !errors.Is(err, lost) || errors.As(err, new(*msl.PeerError)) {
			t.Errorf("%v: %v", refusal, err)
		}
	}
}

// A losing transport fails after that many messages.
type losing struct {
	msl.Transport
	err  error
	left int
}

func (l *losing) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	if l.left--; l.left < 0 {
		return nil, l.err
	}
	return l.Transport.RoundTrip(ctx, write)
}

// TestMessageLimit has a server that never accepts: the client gives up after
// twelve messages with the last error.
func TestMessageLimit(t *testing.T) {
	n := softNetwork(t)
	served := 0
	n.handler = func(context.Context, *msl.ResponseWriter, *msl.Message) error {
		served++
		return msl.ErrMessageReplayed
	}
	_, _, err := send(t, n.pskClient("device"), secret("x"))
	if !errors.Is(err, msl.ErrMessageReplayed) {
		t.Errorf("got %v", err)
	}
	if served != 6 {
		t.Errorf("served %d messages, want 6", served)
	}
}

// TestKeysBeforeData has a server that wants its requests encrypted, and a client
// that does not care: it does a handshake when it is asked to, and not before.
func TestKeysBeforeData(t *testing.T) {
	n := softNetwork(t)
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if !m.Encrypted {
			return msl.ErrResponseRequiresEncryption
		}
		return echo(ctx, w, m)
	}
	mustSend(t, n.noneClient("device"), &msl.Request{Body: msl.BytesBody([]byte("hello"))}, 6)
}

// TestForgottenSession restarts a server with other issuer keys: every token is
// foreign, and the client starts again.
func TestForgottenSession(t *testing.T) {
	n := softNetwork(t)
	c := n.rsaClient("device")
	mustSend(t, c, secret("first"), 4)
	other := softNetwork(t)
	other.directory["device"] = n.directory["device"]
	other.server.Local = n.entity
	n.server = other.server
	mustSend(t, c, secret("second"), 6)
}

// TestRestart closes a client and starts another on the same state.
func TestRestart(t *testing.T) {
	for name, client := range map[string]func(*network) *msl.Client{
		"PSK": func(n *network) *msl.Client { return n.pskClient("device") },
		"RSA": func(n *network) *msl.Client { return n.rsaClient("device") },
	} {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			path := filepath.Join(t.TempDir(), "client.db")
			n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				w.SetServiceToken("visit", []byte("1"), msl.BindUser)
				if len(m.ServiceTokens) > 0 && !m.ServiceTokens[0].Opened {
					t.Error("our own service token came back unreadable")
				}
				return echo(ctx, w, m)
			}
			c := client(n)
			var tokens int
			for i := range 3 {
				state := must(bolt.OpenClient(path, "test"))
				again := n.client(c.Local, c.KeyExchanges...)
				again.State = state
				req := secret("hello")
				req.NonReplayable = i > 0
				r, _, err := send(t, again, req)
				if err != nil {
					t.Fatal(err)
				}
				if i > 0 && r.Messages != 2 {
					t.Errorf("restart %d took %d messages: the session was not resumed", i, r.Messages)
				}
				tokens = len(r.ServiceTokens)
				again.Close()
				state.Close()
			}
			if tokens != 1 {
				t.Errorf("%d service tokens came back, want 1", tokens)
			}
		})
	}
}

// An unavailable key is one whose device does not answer.
type unavailable struct{ msl.Null }

func (unavailable) Verify([]byte, []byte) error { return keystore.ErrUnavailable }

// TestRestartKeepsServiceTokens starts a client again while the keys of its service tokens
// cannot be used, and when its session has ended. The tokens that are bound to nothing are
// still there, and in its state.
func TestRestartKeepsServiceTokens(t *testing.T) {
	n := softNetwork(t)
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if len(m.ServiceTokens) == 0 {
			w.SetServiceToken("visit", []byte("1"), msl.BindNone)
		}
		return echo(ctx, w, m)
	}
	first := n.pskClient("device")
	state := must(bolt.OpenClient(filepath.Join(t.TempDir(), "client.db"), "test"))
	t.Cleanup(func() { state.Close() })
	first.State = state
	mustSend(t, first, plainly(), 2)
	for name, change := range map[string]func(*msl.Client){
		"keys of the tokens": func(c *msl.Client) { c.ServiceTokens = msl.ServiceTokenKeys{"": unavailable{}} },
		"another exchange":   func(c *msl.Client) { c.KeyExchanges = []msl.Offerer{clientKeys(t)["ASYMMETRIC_WRAPPED"]} },
	} {
		again := n.client(first.Local, first.KeyExchanges...)
		again.State = state
		change(again)
		if _, err := again.HeldTokens(t.Context(), ""); err != nil {
			t.Fatal(name, err)
		}
		if held := again.Held().ServiceTokens; len(held) != 1 || held[0].Name != "visit" {
			t.Errorf("%s: holds %+v", name, held)
		}
		again.Close()
	}
}

// TestNothingLeft closes everything and counts the keys that are still open.
func TestNothingLeft(t *testing.T) {
	store := soft.New()
	n := newNetwork(t, store)
	for _, c := range []*msl.Client{n.pskClient("psk"), n.rsaClient("rsa")} {
		for range 3 {
			if _, _, err := send(t, c, secret("hello")); err != nil {
				t.Fatal(err)
			}
			n.now = n.now.Add(2 * time.Hour)
		}
		wrong := secret("x")
		wrong.User = "nobody@example.com"
		if _, _, err := send(t, c, wrong); err == nil {
			t.Fatal("unknown user was accepted")
		}
		c.Close()
	}
	n.server.Close()
	n.psk.Close()
	if objects, _ := store.Live(); objects != 0 {
		t.Errorf("%d session keys are still open", objects)
	}
}
