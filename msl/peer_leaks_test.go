package msl_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// A failingSigner is a key of a device that fails some more times.
type failingSigner struct {
	crypto.Signer
	failures atomic.Int32
}

func (s *failingSigner) Sign(random io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if s.failures.Add(-1) >= 0 {
		return nil, keystore.ErrUnavailable
	}
	return s.Signer.Sign(random, digest, o)
}

// TestPeerAnswerRetried has a device fail twice while an answer is made: the tries that failed keep
// nothing, not even the right to renew tokens, which the next request of this side needs.
func TestPeerAnswerRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newSides(t, "PSK", "RSA")
		entity := *two.client.Local.(*entityauth.RSAEntity)
		signer := &failingSigner{Signer: entity.Key}
		entity.Key, two.client.Local = signer, &entity
		for range 2 {
			first, second := connect(t, one, two)
			signer.failures.Store(2)
			done := serveAll(second, echo, 1)
			ask(t, first, secret2("hello"))
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			one.now, two.now = one.now.Add(25*time.Hour), two.now.Add(25*time.Hour)
		}
		renewsStill(t, two, one)
	})
}

// renewsStill has a side renew its tokens by a request: nothing else keeps the right to.
func renewsStill(t *testing.T, s, other *side) {
	t.Helper()
	s.now, other.now = s.now.Add(25*time.Hour), other.now.Add(25*time.Hour)
	asks, answers := connect(t, s, other)
	done := serveAll(answers, echo, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := asks.Request(ctx, &msl.Request{Encrypted: true, RequestTokens: true, Body: msl.BytesBody([]byte("hello"))})
	if err != nil {
		t.Fatal(err)
	}
	if r.KeyExchange == "" {
		t.Error("no token was renewed")
	}
	if err := errors.Join(r.Body.Close(), <-done); err != nil {
		t.Error(err)
	}
}

// keysClosed ends a side, and checks that nothing holds its memory and keys any more.
func keysClosed(t *testing.T, store *soft.Store, server *msl.Server, client *msl.Client) {
	t.Helper()
	if s := server.Stats(); s.Unproven+s.Proven != 0 {
		t.Errorf("%d bytes are in use", s.Unproven+s.Proven)
	}
	server.Close()
	client.Close()
	for _, p := range server.Peers {
		if psk, ok := p.(*entityauth.PSK); ok {
			psk.Close()
		}
	}
	n, _ := store.Live() // a message that broke off may still be written
	for deadline := time.Now().Add(5 * time.Second); n != 0 && time.Now().Before(deadline); n, _ = store.Live() {
		time.Sleep(time.Millisecond)
	}
	if n != 0 {
		t.Errorf("%d keys are still open", n)
	}
}

// A toldConn notes what a connection is told.
type toldConn struct {
	net.Conn
	told string
}

func (c *toldConn) Between() { c.told += "between " }
func (c *toldConn) Proven()  { c.told += "proven " }

// TestPeerConnTold tells a connection when it is between two messages, and that its peer has
// authenticated, which limits on connections depend on.
func TestPeerConnTold(t *testing.T) {
	one, two := newSides(t, "PSK", "PSK")
	a, b := net.Pipe()
	defer a.Close()
	told := &toldConn{Conn: b}
	first, second := msl.NewConn(a, one.server, one.client), msl.NewConn(told, two.server, two.client)
	done := serveAll(second, echo, 2)
	ask(t, first, secret2("hello"))
	ask(t, first, secret2("hello"))
	if err := <-done; err != nil {
		t.Error(err)
	}
	if told.told != "between proven between " && told.told != "between proven between proven " {
		t.Errorf("told %q", told.told)
	}
}

// TestPeerChannelTheirsOld opens a channel when the token that the peer holds is old, and that of
// this side is not. If it has expired, the handshake for both comes first. Otherwise the peer
// answers under it.
func TestPeerChannelTheirsOld(t *testing.T) {
	for _, age := range []time.Duration{2 * time.Hour, 25 * time.Hour} {
		one, two := newSides(t, "RSA", "RSA")
		two.server.Issuer.RenewAfter, two.server.Issuer.Lifetime = 48*time.Hour, 50*time.Hour
		first, second := connectLater(t, one, two, age)
		talkOver(t, first, second)
	}
}

// A lostEntity can prove itself that many more times.
type lostEntity struct {
	msl.LocalEntity
	left int
}

var errLostEntity = errors.New("its key is lost")

func (e *lostEntity) Credentials(ctx context.Context) (msl.Credentials, error) {
	if e.left--; e.left < 0 {
		return msl.Credentials{}, errLostEntity
	}
	return e.LocalEntity.Credentials(ctx)
}

// TestPeerAnswerFailsAfterHandshake has a side be unable to make an answer after the handshake for
// it: the error answers the message that brought the keys, which are released.
func TestPeerAnswerFailsAfterHandshake(t *testing.T) {
	conn, peer := recordedConn(t, 0)
	conn.Client.Local = &lostEntity{conn.Client.Local, 1}
	done := peer.serve(conn, echo, 1)
	peer.write(peer.request(1, []byte("x")))
	h, _ := peer.header()
	peer.give(h)
	if _, refusal := peer.header(); refusal == nil || *refusal.MessageID != h.MessageID+2 {
		t.Errorf("refusal %+v", refusal)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	keysClosed(t, conn.Server.Issuer.Store.(*soft.Store), conn.Server, conn.Client)
}

// TestPeerNumbersSpent has another process use up the ids between one that was lost and the next
// one, which would end the session with the peer: this side begins another.
func TestPeerNumbersSpent(t *testing.T) {
	one, two := newSides(t, "PSK", "PSK")
	state := &recordState{}
	one.client.State = state
	numbered := secret2("hello")
	numbered.NonReplayable = true
	first, second := connect(t, one, two)
	serveAll(second, echo, 1)
	ask(t, first, numbered)
	serial := one.client.Held().MasterToken.SerialNumber
	ctx, cancel := context.WithCancel(t.Context())
	first, second = connect(t, one, two)
	ended := make(chan struct{})
	serveAll(second, func(context.Context, *msl.ResponseWriter, *msl.Message) error {
		cancel()
		<-ended // else this side's error could still arrive
		return context.Canceled
	}, 1)
	if _, err := first.Request(ctx, numbered); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(ended)
	state.ids[serial] += 10
	first, second = connect(t, one, two)
	done := serveAll(second, echo, 1)
	r, data := ask(t, first, numbered)
	if data != "hello" || r.Messages != 4 || one.client.Held().MasterToken.SerialNumber == serial {
		t.Errorf("%q in %d messages, in the same session: %v", data, r.Messages, one.client.Held().MasterToken.SerialNumber == serial)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestPeerContextAfterwards has the contexts of an exchange end after it, as callers of Request and
// Serve do: the connection goes on.
func TestPeerContextAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newSides(t, "PSK", "PSK")
		first, second := connect(t, one, two)
		for range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- second.Serve(ctx, echo) }()
			r, err := first.Request(ctx, secret2("hello"))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(r.Body.Close(), <-done); err != nil {
				t.Fatal(err)
			}
			cancel()
			synctest.Wait()
		}
	})
}

// TestPeerRefusedBeforeHandler refuses a request before its handler runs, and its peer writes all of
// it before it reads.
func TestPeerRefusedBeforeHandler(t *testing.T) {
	conn, peer := recordedConn(t, 0)
	done := peer.serve(conn, echo, 1)
	peer.who = byScheme("NONE", object{"identity": "client3"}) // which has no pre-shared keys
	var chunks []any
	for n := range 6 {
		chunks = append(chunks, object{"sequencenumber": n + 1, "messageid": 1, "endofmsg": n == 5, "data": random(50000)})
	}
	peer.write(rawKeys{}.message(peer.who, one(requests(pskRequest)), chunks...))
	if _, refusal := peer.header(); refusal == nil || refusal.InternalCode != msl.ErrEntityNotFound.Internal() {
		t.Errorf("refusal %+v", refusal)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestPeerAfterwardOvertaken has the next message of a peer arrive with the one being answered: what
// was put off until after the answer does not run, since the peer no longer waits.
func TestPeerAfterwardOvertaken(t *testing.T) {
	for messages, want := range map[int]bool{1: true, 2: false} {
		conn, _ := newRecorded(t).peerTo(t, bytes.Repeat(fromToken(), messages))
		conn.Client.KeyExchanges = nil // the answer asks for nothing
		ran := false
		err := conn.Serve(t.Context(), func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			w.Encrypted, w.Authenticated = false, false
			w.Afterward(func() error { ran = true; return nil })
			return nil
		})
		if err != nil || ran != want {
			t.Errorf("%d messages: ran %v, %v", messages, ran, err)
		}
	}
}
