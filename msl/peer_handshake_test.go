package msl_test

import (
	"encoding/json"
	"strings"
	"testing"

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
