package msl_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A peer may need keys before it answers with data. Old stacks do not mark the handshake in
// which they ask for them: it has key requests and one empty chunk. It is answered with keys
// at once, and the data that follows is the answer, unless there were too many messages.
func TestPeerAnswersWithHandshake(t *testing.T) {
	last := func(data string) object { return object{"sequencenumber": 1, "endofmsg": true, "data": []byte(data)} }
	for _, c := range []struct {
		name      string
		refusals  int // before the answer
		handshake object
		chunk     object // or nil
		want      string
		messages  int // or 0 if there is no answer
	}{
		{"marked", 0, object{"handshake": true}, nil, "real", 4},
		{"not marked", 0, object{"handshake": false}, last(""), "real", 4},
		{"of a stack without the mark", 0, nil, last(""), "real", 4},
		{"compressed nothing", 0, nil, with(last(""), object{"compressionalgo": "GZIP"}), "real", 4},
		{"not renewable", 0, object{"renewable": false}, last(""), "", 2},
		{"with data", 0, nil, last("data"), "data", 2},
		{"after refusals", 4, object{"handshake": true}, nil, "real", 12},
		{"after too many refusals", 5, object{"handshake": true}, nil, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, peer := recordedConn(t, 0)
			done := make(chan bool)
			go func() {
				defer close(done)
				peer.shakeThenAnswer(c.refusals, c.handshake, c.chunk, c.messages-2*c.refusals)
			}()
			r, err := conn.Request(t.Context(), &msl.Request{Body: msl.BytesBody([]byte("x"))})
			switch {
			case c.messages == 0:
				if err == nil || !strings.Contains(err.Error(), "12 messages") {
					t.Errorf("got %v", err)
				}
			case err != nil:
				t.Fatal(err)
			default:
				if got := readAll(t, r.Body); got != c.want || r.Messages != c.messages {
					t.Errorf("read %q in %d messages", got, r.Messages)
				}
				if err := r.Body.Close(); err != nil {
					t.Error(err)
				}
			}
			<-done
			keysClosed(t, conn.Server.Issuer.Store.(*soft.Store), conn.Server, conn.Client)
		})
	}
}

// asked reads a request of one chunk, and returns its header.
func (p *writingPeer) asked() peerHeader {
	h, _ := p.header()
	if err := p.in.Decode(new(json.RawMessage)); err != nil {
		p.t.Error(err)
	}
	return h
}

// shakeThenAnswer refuses requests as expired, then asks for keys. Where messages follow, it
// reads the keys, and if they come before data was sent, it answers.
func (p *writingPeer) shakeThenAnswer(refusals int, handshake, chunk object, messages int) {
	for range refusals {
		h := p.asked()
		p.write(encode(with(pskClient1.signed("errordata", pskClient1.encrypt(encode(object{"messageid": h.MessageID + 1, "errorcode": 8}))), p.who)))
	}
	id := p.asked().MessageID + 1
	var chunks []any
	if chunk != nil {
		chunks = append(chunks, with(chunk, object{"messageid": id}))
	}
	p.write(pskClient1.message(p.who, with(object{"messageid": id, "renewable": true, "keyrequestdata": []any{pskRequest}}, handshake), chunks...))
	if messages < 2 {
		return
	}
	h, refusal := p.header()
	if keys := handshake["renewable"] != false; refusal != nil || h.MessageID != id+1 || (h.KeyResponseData != nil) != keys {
		p.t.Errorf("keys: %v; got %+v, %+v", keys, h, refusal)
	}
	if messages == 4 {
		p.write(pskClient1.message(p.who, object{"messageid": id + 2, "renewable": false},
			object{"sequencenumber": 1, "messageid": id + 2, "endofmsg": true, "data": []byte("real")}))
	}
}

// shake writes the handshake of a peer that asks for keys.
func (p *writingPeer) shake(id int64) {
	p.write(pskClient1.message(p.who, object{"messageid": id, "handshake": true, "renewable": true, "timestamp": p.now, "keyrequestdata": []any{pskRequest}}))
}

// TestPeerAnswersWithHandshakes has a peer that needs keys more than once before it answers.
func TestPeerAnswersWithHandshakes(t *testing.T) {
	answer := func(id int, members object, chunks ...any) []byte {
		return pskClient1.message(byPSK("client1"), with(members, object{"messageid": id}), chunks...)
	}
	asks := requests(pskRequest)
	last := func(id int, data string) object { return with(hello, object{"messageid": id, "data": []byte(data)}) }
	for handshakes := 2; handshakes <= 6; handshakes++ {
		var sent []byte
		for i := range handshakes { // every second of an older stack, without the mark
			if id := 2 + 2*i; i%2 == 0 {
				sent = append(sent, answer(id, with(asks, object{"handshake": true}))...)
			} else {
				sent = append(sent, answer(id, asks, last(id, ""))...)
			}
		}
		id := 2 + 2*handshakes
		sent = append(sent, answer(id, object{"renewable": false}, last(id, "real"))...)
		conn, _ := newRecorded(t).peerTo(t, sent)
		r, err := conn.Request(t.Context(), &msl.Request{Body: msl.BytesBody([]byte("x"))})
		if id > 12 {
			if err == nil || !strings.Contains(err.Error(), "12 messages") {
				t.Errorf("%d handshakes: %v", handshakes, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%d handshakes: %v", handshakes, err)
		}
		if got := readAll(t, r.Body); got != "real" || r.Messages != id {
			t.Errorf("%d handshakes: read %q in %d messages", handshakes, got, r.Messages)
		}
	}
}

// TestPeerChannelHandshake has a peer answer the first chunk of a channel with a handshake:
// the keys cannot be sent before the channel ends.
func TestPeerChannelHandshake(t *testing.T) {
	conn, peer := recordedConn(t, 0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer peer.conn.Close()
		h, _ := peer.header()
		peer.shake(h.MessageID + 1)
		h, _ = peer.header()
		peer.give(h)
		peer.shake(peer.asked().MessageID + 1)
	}()
	_, err := conn.Request(t.Context(), &msl.Request{Interactive: true, Body: msl.BytesBody([]byte("x"))})
	if err == nil || !strings.Contains(err.Error(), "send an ordinary request first") {
		t.Errorf("got %v", err)
	}
	<-done
	keysClosed(t, conn.Server.Issuer.Store.(*soft.Store), conn.Server, conn.Client)
}

// TestPeerOnlyHandshakes has a peer that sends handshakes and never a request.
func TestPeerOnlyHandshakes(t *testing.T) {
	conn, peer := recordedConn(t, 0)
	done := peer.serve(conn, echo, 1)
	id := int64(1)
	for range 5 {
		peer.shake(id)
		h, refusal := peer.header()
		if refusal != nil || h.MessageID != id+1 || h.Handshake {
			t.Fatalf("answer to %d: %+v, %+v", id, h, refusal)
		}
		id = h.MessageID + 1
	}
	peer.shake(id)
	if err := peer.in.Decode(new(json.RawMessage)); err == nil {
		t.Error("the sixth is answered")
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "too many handshakes") {
		t.Errorf("got %v", err)
	}
}

// TestPeerWithoutKeys has a peer answer the handshake that asks it for keys without them.
func TestPeerWithoutKeys(t *testing.T) {
	conn, peer := recordedConn(t, 0)
	done := peer.serve(conn, echo, 1)
	peer.write(peer.request(1, []byte("x")))
	h, _ := peer.header()
	if !h.Handshake {
		t.Fatalf("no handshake: %+v", h)
	}
	peer.write(pskClient1.message(peer.who, object{"messageid": h.MessageID + 1, "renewable": false, "handshake": false, "timestamp": peer.now}))
	if _, refusal := peer.header(); refusal == nil || refusal.InternalCode != 100000+int(msl.ErrKeyXResponseRequestMismatch) {
		t.Errorf("got %+v", refusal)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// An unwritable state cannot save.
type unwritable struct{ recordState }

var errNoRoom = errors.New("disk full")

func (*unwritable) Save(context.Context, msl.ClientRecord) error { return errNoRoom }

// TestPeerKeepsNothing has a side that cannot save the tokens that its peer gives with an
// answer or a request: neither counts as accepted.
func TestPeerKeepsNothing(t *testing.T) {
	t.Run("answer", func(t *testing.T) {
		conn, peer := recordedConn(t, 0)
		conn.Client.State = &unwritable{}
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer peer.conn.Close()
			h, _ := peer.header()
			peer.give(h)
		}()
		if _, err := conn.Request(t.Context(), &msl.Request{Interactive: true, Body: msl.BytesBody([]byte("x"))}); !errors.Is(err, errNoRoom) {
			t.Errorf("got %v", err)
		}
		<-done
	})
	t.Run("request", func(t *testing.T) {
		conn, peer := recordedConn(t, 0)
		conn.Client.State = &unwritable{}
		done := peer.serve(conn, func(context.Context, *msl.ResponseWriter, *msl.Message) error {
			t.Error("the application acts on it")
			return nil
		}, 1)
		peer.write(pskClient1.message(peer.who, object{"messageid": 1, "renewable": false, "timestamp": peer.now,
			"peerservicetokens": []any{serviceToken(object{"name": "unbound"})}},
			object{"sequencenumber": 1, "messageid": 1, "endofmsg": true, "data": []byte("x")}))
		if h, refusal := peer.header(); refusal == nil {
			t.Errorf("got %+v", h)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
