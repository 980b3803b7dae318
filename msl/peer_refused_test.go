package msl_test

import (
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// refuse writes an error that answers a message.
func (p *writingPeer) refuse(h peerHeader, code int) {
	p.write(encode(with(pskClient1.signed("errordata", pskClient1.encrypt(encode(object{"messageid": h.MessageID + 1, "errorcode": code}))), p.who)))
}

// mustEnd has this side give up with the refusal, and send nothing: an error is never answered.
func (p *writingPeer) mustEnd(t *testing.T, conn *msl.Conn, done <-chan error) {
	t.Helper()
	if err := p.in.Decode(new(json.RawMessage)); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the error was answered: %v", err)
	}
	if err := <-done; !errors.As(err, new(*msl.PeerError)) {
		t.Errorf("served: %v", err)
	}
	keysClosed(t, conn.Server.Issuer.Store.(*soft.Store), conn.Server, conn.Client)
}

// A peerRefusal is how often a peer refuses with a response code, and whether another message
// follows the last time.
type peerRefusal struct {
	code, times int
	again       bool
}

// refused has the peer refuse h and what follows, by that case. It returns the last message.
func (c peerRefusal) refused(t *testing.T, p *writingPeer, h peerHeader) peerHeader {
	t.Helper()
	tokens := string(h.KeyResponseData)
	for n := range c.times {
		id := h.MessageID + 2
		if p.refuse(h, c.code); !c.again && n == c.times-1 {
			break
		}
		if h, _ = p.header(); h.MessageID != id || len(h.KeyRequestData) != 1 || h.KeyResponseData == nil || h.Handshake && string(h.KeyResponseData) != tokens {
			t.Errorf("%+v: %+v, first %s", c, h, tokens)
		}
	}
	return h
}

// TestPeerRefusesHandshake has a peer refuse the handshake that comes before an answer. If the
// error asks for another message, that gives the peer the same tokens again.
func TestPeerRefusesHandshake(t *testing.T) {
	for _, c := range []peerRefusal{{1, 1, false}, {2, 1, false}, {3, 1, true}, {4, 1, true}, {5, 1, true}, {6, 1, false}, {7, 1, false},
		{8, 1, true}, {9, 1, true}, {10, 1, false}, {11, 1, false}, {3, 2, true}, {3, 4, false}} {
		conn, peer := recordedConn(t, 0)
		done := peer.serve(conn, echo, 1)
		peer.write(pskClient1.message(peer.who, one(requests(pskRequest), object{"timestamp": peer.now}), hello))
		h, _ := peer.header()
		if h = c.refused(t, peer, h); !c.again {
			peer.mustEnd(t, conn, done)
			continue
		}
		peer.give(h)
		peer.header()
		if got := peer.answer(); string(got) != "hello" {
			t.Errorf("%+v: %q", c, got)
		}
		if err := <-done; err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestPeerRefusesKeys has a peer refuse the answer to its own handshake, which asks for keys.
func TestPeerRefusesKeys(t *testing.T) {
	for _, c := range []peerRefusal{{1, 1, false}, {3, 1, true}, {6, 1, false}, {3, 4, true}, {3, 5, false}} {
		conn, peer := recordedConn(t, 0)
		done := peer.serve(conn, echo, 1)
		peer.shake(1)
		h, _ := peer.header()
		if c.refused(t, peer, h); !c.again {
			peer.mustEnd(t, conn, done)
			continue
		}
		peer.conn.Close()
		<-done
	}
}

// TestPeerRefusesTokens has a peer refuse the token under which it was answered. The answer was
// sent, but the next one is not under that token.
func TestPeerRefusesTokens(t *testing.T) {
	conn, peer := recordedConn(t, 0)
	peer.token = rawKeys{"peer", random(16), random(32)}.token(with(masterMembers, object{"renewalwindow": 1}), "sessiondata", object{"x": 1})
	done := peer.serve(conn, echo, 1)
	peer.write(peer.request(1, []byte("x")))
	h, _ := peer.header()
	peer.give(h)
	if h, _ = peer.header(); len(h.KeyRequestData) != 1 {
		t.Fatalf("no key request: %+v", h)
	}
	peer.answer()
	peer.refuse(h, int(msl.EntityReauth))
	if err := <-done; !errors.As(err, new(*msl.PeerError)) || conn.Client.Held().MasterToken != nil {
		t.Errorf("served: %v; the token is held: %v", err, conn.Client.Held().MasterToken != nil)
	}
}
