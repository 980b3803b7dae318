package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A draft is a message in parts that faults change. A part whose name is that of a member of
// the header, or of the whole message, becomes that member.
type draft struct {
	parts    map[string]object
	clash    bool // two faults change the same
	prepared []func(*recorded) (undo func())
}

// A fault is one thing wrong with a message, and the code that it is refused with.
type fault struct {
	name string
	code msl.Code
	make func(*draft)
}

// wrong is a fault of members of a part.
func wrong(code msl.Code, part string, changes object) fault {
	return fault{fmt.Sprintf("%s %v", part, changes), code, func(d *draft) { d.change(part, changes) }}
}

func (d *draft) change(part string, changes object) {
	if d.parts[part] == nil {
		d.parts[part] = object{}
	}
	for name, v := range changes {
		if old, ok := d.parts[part][name]; ok && !bytes.Equal(encode(old), encode(v)) {
			d.clash = true
		}
		d.parts[part][name] = v
	}
}

// and is a fault that needs more changes.
func (f fault) and(part string, changes object) fault {
	first := f.make
	f.make = func(d *draft) { first(d); d.change(part, changes) }
	return f
}

// stateFault is a fault that the server knows of.
func stateFault(code msl.Code, name string, prepare func(*recorded) (undo func())) fault {
	return fault{name, code, func(d *draft) { d.prepared = append(d.prepared, prepare) }}
}

func revoking(code msl.Code, name string) fault {
	return stateFault(code, "revoked "+name, func(r *recorded) func() {
		r.state.revoked[name] = code
		return func() { delete(r.state.revoked, name) }
	})
}

// signer returns the keys of a part: those of others, if a fault says so.
func (d *draft) signer(part string, own rawKeys) rawKeys {
	if d.parts["keys"][part] != nil {
		return pskClient2
	}
	return own
}

// token makes a token of the parts named name, of its outer members, and name plus " data".
func (d *draft) token(name string, own rawKeys, members object, inner string, inside object) object {
	members = with(members, nil)
	if inner != "" {
		members[inner] = own.encrypt(encode(with(inside, d.parts[name+" inside"])))
	}
	token := d.signer(name, own).signed("tokendata", encode(with(members, d.parts[name+" data"])))
	return with(token, d.parts[name])
}

// has reports whether a part, or something in it, is wanted.
func (d *draft) has(part string) bool {
	return d.parts[part] != nil || d.parts[part+" data"] != nil || d.parts[part+" inside"] != nil || d.parts["keys"][part] != nil
}

// tokens are the tokens of a header whose names have a prefix, which is that of a peer.
func (d *draft) tokens(prefix string) object {
	header := object{}
	if d.has(prefix + "useridtoken") {
		header[prefix+"useridtoken"] = d.token(prefix+"useridtoken", issuerKeys, userMembers, "userdata", userData)
	}
	if d.has(prefix + "servicetokens") {
		service := object{"name": "st", "encrypted": false, "servicedata": ""}
		header[prefix+"servicetokens"] = []any{d.token(prefix+"servicetokens", serviceKeys, service, "", nil)}
	}
	return header
}

// message is the message of the draft, from the holder of a master token or from an entity.
func (d *draft) message(keys rawKeys, who object) []byte {
	header := one(d.tokens(""), d.tokens("peer"))
	if d.has("peermastertoken") {
		header["peermastertoken"] = d.token("peermastertoken", issuerKeys, masterMembers, "sessiondata", sessionData)
	}
	if d.has("keyresponsedata") {
		delivered := object{"mastertoken": d.token("delivered", issuerKeys, masterMembers, "sessiondata", sessionData), "scheme": "SYMMETRIC_WRAPPED", "keydata": sessionResponse}
		header["keyresponsedata"] = with(delivered, d.parts["keyresponsedata"])
	}
	if who == nil {
		who = object{"mastertoken": d.token("mastertoken", issuerKeys, masterMembers, "sessiondata", sessionData)}
	}
	if d.has("password") {
		header["userauthdata"] = object{"scheme": "EMAIL_PASSWORD", "authdata": with(password["authdata"].(object), d.parts["password"])}
	}
	inside := encode(with(header, d.parts["header"]))
	if d.parts["plain"] != nil {
		inside = []byte("{")
	}
	data := keys.encrypt(inside)
	if d.parts["envelope"] != nil {
		data = []byte("x")
	}
	outer := with(with(d.signer("header", keys).signed("headerdata", data), who), d.parts["outer"])
	return append(encode(outer), encode(keys.signed("payload", keys.encrypt(encode(hello))))...)
}

// inOrder makes a message of each fault, and of each two that go together: the code is that of
// the check that comes first in the protocol.
func inOrder(t *testing.T, r *recorded, faults []fault, read func(d *draft) error) {
	t.Helper()
	renewTwice(r)
	tried := 0
	for i, first := range faults {
		for _, second := range faults[i:] {
			d := &draft{parts: map[string]object{}}
			first.make(d)
			second.make(d)
			if d.clash {
				continue
			}
			tried++
			var undo []func()
			for _, prepare := range d.prepared {
				undo = append(undo, prepare(r))
			}
			if err := read(d); !errors.Is(err, first.code) {
				t.Errorf("%s, %s: %v, want %v", first.name, second.name, err, first.code)
			}
			for _, f := range undo {
				f()
			}
		}
	}
	if tried < len(faults)*len(faults)/3 {
		t.Errorf("%d pairs of %d faults", tried, len(faults))
	}
}

// requestOrder is the order for messages that answer none. The user comes last, except that key
// requests which cannot be answered are found after that. Tokens are not decompressed for a
// sender or a user who is refused.
func requestOrder(first, user, rest []fault, last ...fault) []fault {
	last = append(lastFaults(), last...)
	for i, f := range last {
		last[i] = f.and("header", object{"keyrequestdata": []any{}})
	}
	rest = append(rest, last...)
	for i, f := range rest {
		if f.code != msl.ErrIncompleteNonReplayableMessage {
			rest[i] = f.and("servicetokens data", object{"compressionalgo": nil})
		}
	}
	return slices.Concat(first, insideFaults(user...), keyFaults(), []fault{unasked}, handshakes, rest)
}

// TestOrderOfChecks has a server judge messages.
func TestOrderOfChecks(t *testing.T) {
	skipWithRace(t)
	byMaster := slices.Concat(masterFaults("mastertoken"), outerFaults,
		[]fault{wrong(msl.ErrMasterTokenUntrusted, "keys", object{"mastertoken": 1})}, openingFaults(msl.ErrMessageMasterTokenBasedVerificationFailed))
	for name, c := range map[string]struct {
		keys   rawKeys
		who    object
		faults []fault
	}{
		"master token": {sessionRaw, nil, requestOrder(byMaster, slices.Concat(openedFaults(), loginFaults()), tokenFaults(), otherUser)},
		"PSK":          {pskClient1, byPSK("client1"), requestOrder(slices.Concat(entityFaults(), openingFaults(msl.ErrMessageEntityDataBasedVerificationFailed)), slices.Concat(openedFaults(), loginFaults()), []fault{withoutToken})},
		"NONE": {rawKeys{}, byScheme("NONE", object{"identity": "client3"}),
			slices.Concat(insideFaults(wrong(msl.ErrUnencryptedMessageWithUserAuthData, "header", object{"userauthdata": object{"scheme": "X"}})), keyFaults(), []fault{unasked}, handshakes, []fault{withoutToken})},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorded(t)
			inOrder(t, r, c.faults, func(d *draft) error {
				_, err := r.server.Receive(context.Background(), bytes.NewReader(d.message(c.keys, c.who)))
				return err
			})
		})
	}
}

// TestOrderOfAnswerChecks has a client judge answers to the message with the id 0.
func TestOrderOfAnswerChecks(t *testing.T) {
	skipWithRace(t)
	client, _ := unprovenServer(t)
	client.ServiceTokens = newRecorded(t).server.ServiceTokens
	faults := slices.Concat(insideFaults(), []fault{unasked}, handshakes, []fault{withoutToken}, answerFaults)
	inOrder(t, newRecorded(t), faults, func(d *draft) error {
		req := &msl.Request{Recipient: "server"}
		if d.has("from another") {
			req.Recipient = "other"
		}
		_, err := client.Answer(t.Context(), req, 0, io.NopCloser(bytes.NewReader(d.message(rawKeys{}, byScheme("NONE", object{"identity": "server"})))))
		return err
	})
}

// zeroReader draws the numbers of a peer: the id of its message is 0.
type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// peerFaults are those of the tokens of this side that a peer shows.
func peerFaults() []fault {
	return slices.Concat([]fault{wrong(msl.ErrMSLParseError, "header", object{"peermastertoken": 1})}, needing("peermastertoken", masterFaults("peermastertoken")),
		userFaults("peeruseridtoken"), []fault{wrong(msl.ErrUserIDTokenMasterTokenMismatch, "peeruseridtoken data", object{"mtserialnumber": 6})}, serviceFaults("peerservicetokens"))
}

// TestOrderOfPeerChecks has a peer judge answers to the message with the id 0, under a master
// token that it issued, and under none.
func TestOrderOfPeerChecks(t *testing.T) {
	skipWithRace(t)
	inside := func(user ...fault) []fault {
		return slices.Concat(insideFaults(user...), keyFaults(), peerFaults(), []fault{unasked}, handshakes)
	}
	for name, c := range map[string]struct {
		keys   rawKeys
		who    object
		faults []fault
	}{
		"master token": {sessionRaw, nil, slices.Concat(inside(openedFaults()...), tokenFaults(), answerFaults)},
		"PSK":          {pskClient1, byPSK("client1"), slices.Concat(inside(), []fault{withoutToken}, answerFaults)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorded(t)
			client := &msl.Client{Local: localSchemes(t)["PSK"], KeyExchanges: []msl.Offerer{clientKeys(t)["SYMMETRIC_WRAPPED"]},
				Time: r.clock, Rand: zeroReader{}, ServiceTokens: r.server.ServiceTokens}
			defer client.Close()
			inOrder(t, r, c.faults, func(d *draft) error {
				req := &msl.Request{Body: msl.BytesBody([]byte("x"))}
				if d.has("from another") {
					req.Recipient = "somebody else"
				}
				_, err := msl.NewConn(&fixedConn{Reader: bytes.NewReader(d.message(c.keys, c.who))}, r.server, client).Request(t.Context(), req)
				return err
			})
		})
	}
}

// TestOrderOfChunkChecks has a server read chunks of a message.
func TestOrderOfChunkChecks(t *testing.T) {
	skipWithRace(t)
	chunk := func(code msl.Code, changes object) fault { return wrong(code, "chunk", changes) }
	r := newRecorded(t)
	inOrder(t, r, []fault{
		wrong(msl.ErrMSLParseError, "outer", object{"payload": 1}),
		wrong(msl.ErrMSLParseError, "outer", object{"signature": nil}),
		wrong(msl.ErrPayloadVerificationFailed, "keys", object{"chunk": 1}),
		chunk(msl.ErrMSLParseError, object{"sequencenumber": "1"}),
		chunk(msl.ErrPayloadSequenceNumberOutOfRange, object{"sequencenumber": tooBig}),
		chunk(msl.ErrMSLParseError, object{"messageid": nil}),
		chunk(msl.ErrPayloadMessageIDOutOfRange, object{"messageid": -1}),
		chunk(msl.ErrMSLParseError, object{"endofmsg": 1}),
		chunk(msl.ErrMSLParseError, object{"compressionalgo": 1}),
		chunk(msl.ErrUnidentifiedCompression, object{"compressionalgo": "X"}),
		chunk(msl.ErrMSLParseError, object{"data": 1}),
		chunk(msl.ErrPayloadDataMissing, object{"data": "", "endofmsg": nil}),
		chunk(msl.ErrUncompressionError, object{"data": "AAAA", "compressionalgo": "GZIP"}),
		chunk(msl.ErrPayloadMessageIDMismatch, object{"messageid": 2}),
		chunk(msl.ErrPayloadSequenceNumberMismatch, object{"sequencenumber": 2}),
	}, func(d *draft) error {
		inside := pskClient1.encrypt(encode(with(hello, d.parts["chunk"])))
		sealed := encode(with(d.signer("chunk", pskClient1).signed("payload", inside), d.parts["outer"]))
		_, err := r.server.Receive(t.Context(), bytes.NewReader(append(pskClient1.message(byPSK("client1"), one()), sealed...)))
		return err
	})
}

// TestOrderOfErrorChecks has a client read errors that answer the message with the id 0.
func TestOrderOfErrorChecks(t *testing.T) {
	skipWithRace(t)
	inside := func(code msl.Code, changes object) fault { return wrong(code, "error", changes) }
	client, _ := unprovenServer(t)
	inOrder(t, newRecorded(t), []fault{
		wrong(msl.ErrMSLParseError, "outer", object{"errordata": 1}),
		wrong(msl.ErrMSLParseError, "outer", object{"signature": nil}),
		wrong(msl.ErrHeaderDataMissing, "outer", object{"errordata": ""}),
		inside(msl.ErrMSLParseError, object{"messageid": "1"}),
		inside(msl.ErrMessageIDOutOfRange, object{"messageid": tooBig}),
		inside(msl.ErrMSLParseError, object{"timestamp": "1"}),
		inside(msl.ErrMSLParseError, object{"errorcode": "1"}),
		inside(msl.ErrMSLParseError, object{"internalcode": "1"}),
		inside(msl.ErrInternalCodeNegative, object{"internalcode": -1}),
		inside(msl.ErrUnexpectedResponseMessageID, object{"messageid": 3}),
		wrong(msl.ErrMessageSenderMismatch, "from another", object{}),
	}, func(d *draft) error {
		req := &msl.Request{Recipient: "server"}
		if d.has("from another") {
			req.Recipient = "other"
		}
		refusal := rawKeys{}.signed("errordata", encode(with(object{"messageid": 1, "errorcode": 4}, d.parts["error"])))
		_, err := client.Answer(t.Context(), req, 0, io.NopCloser(bytes.NewReader(encode(with(with(refusal, byScheme("NONE", object{"identity": "server"})), d.parts["outer"])))))
		return err
	})
}
