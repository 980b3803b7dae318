package msl_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestKnownPeer answers peers of the reference stack on new connections: under the token
// that the peer gave on an earlier one, if it comes back in the session with us that it
// had then. Any other sender is asked for keys.
func TestKnownPeer(t *testing.T) {
	skipWithRace(t)
	otherSerial := object{"serialnumber": 8}
	for name, c := range map[string]struct {
		first, then object
		handshake   bool
	}{
		"in its session":            {byToken(nil), byToken(nil), false},
		"in its session, renewed":   {byToken(nil), byToken(object{"sequencenumber": 2}), false},
		"in another session":        {byToken(nil), byToken(otherSerial), true},
		"without a session":         {byToken(nil), byPSK("client1"), true},
		"never had one":             {byPSK("client1"), byPSK("client1"), true},
		"had none, has one":         {byPSK("client1"), byToken(nil), true},
		"in its session, and again": {byToken(otherSerial), byToken(otherSerial), false},
	} {
		t.Run(name, func(t *testing.T) {
			conn, peer := recordedConn(t, 0)
			for turn, who := range []object{c.first, c.then, c.then} {
				if turn > 0 {
					conn, peer = againConn(t, conn, peer)
				}
				peer.who = who
				done := peer.serve(conn, echo, 1)
				data := random(1000)
				peer.write(peer.request(1, data))
				h, refused := peer.header()
				if refused != nil {
					t.Fatalf("refused: %+v", refused)
				}
				if want := turn == 0 || c.handshake && turn == 1; h.Handshake != want && turn < 2 {
					t.Errorf("turn %d: handshake %v", turn, h.Handshake)
				}
				if h.Handshake {
					peer.give(h)
					peer.header()
				}
				if got := peer.answer(); !bytes.Equal(got, data) {
					t.Errorf("turn %d: %d bytes", turn, len(got))
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// againConn is another connection between the two.
func againConn(t *testing.T, before *msl.Conn, peer *writingPeer) (*msl.Conn, *writingPeer) {
	ours, theirs := pipe(t)
	next := *peer
	next.conn, next.in = theirs, json.NewDecoder(theirs)
	return msl.NewConn(ours, before.Server, before.Client), &next
}

// protection is that of the messages of the peer.
func (p *writingPeer) protection() rawKeys {
	if p.who["mastertoken"] != nil {
		return sessionRaw
	}
	return pskClient1
}

// TestPeerAnswerRefused refuses an answer that brings keys, for another reason: the keys are
// destroyed.
func TestPeerAnswerRefused(t *testing.T) {
	one, two := newSides(t, "RSA", "PSK")
	before, _ := one.store.Live()
	asks, answers := connect(t, one, two)
	serveAll(answers, echo, 1)
	_, err := asks.Request(t.Context(), &msl.Request{Recipient: "another", Encrypted: true, RequestTokens: true, Body: msl.BytesBody([]byte("hello"))})
	if !errors.Is(err, msl.ErrMessageSenderMismatch) {
		t.Error(err)
	}
	if after, _ := one.store.Live(); after != before {
		t.Errorf("%d keys, were %d", after, before)
	}
}

// TestPeersRemember has each side remember the sessions of the tokens that it gives, before the
// other side first uses them, also where a handshake brought them.
func TestPeersRemember(t *testing.T) {
	for _, scheme := range []string{"PSK", "RSA"} {
		one, two := newSides(t, scheme, "RSA")
		asks, answers := connect(t, one, two)
		serveAll(answers, echo, 2)
		for range 2 {
			ask(t, asks, &msl.Request{Encrypted: true, RequestTokens: true, Body: msl.BytesBody([]byte("hello"))})
		}
		for _, s := range []*side{one, two} {
			if stats := s.server.Stats(); stats.Misses > 0 || stats.Hits == 0 {
				t.Errorf("%s, %s: %d sessions of messages were remembered, %d were not", scheme, s.identity, stats.Hits, stats.Misses)
			}
		}
	}
}
