package msl_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A structure is an object somewhere in a message.
type structure struct {
	name     string
	valid    object
	in       func(o object) []byte // a message with o in its place
	wrong    msl.Code              // of a member that is missing or of another type; 0 is a parse error
	absent   map[string]msl.Code   // of members that have another code if they are missing
	optional []string              // may be missing
	unread   []string              // may be of any type, too
}

// outside are the objects that a message is made of.
func outside() []structure {
	head, chunk := pskClient1.message(byPSK("client1"), one()), pskClient1.signed("payload", pskClient1.encrypt(encode(hello)))
	by := func(scheme string) func(object) []byte {
		return func(o object) []byte { return rawKeys{}.message(byScheme(scheme, o), one(), hello) }
	}
	return []structure{
		{name: "header", valid: parsed(head), absent: map[string]msl.Code{"entityauthdata": msl.ErrMessageEntityNotFound},
			in: func(o object) []byte { return append(encode(o), encode(chunk)...) }},
		{name: "ciphertext envelope", valid: parsed(pskClient1.encrypt(encode(one()))), wrong: msl.ErrCiphertextEnvelopeParseError,
			absent: map[string]msl.Code{"iv": msl.ErrInvalidAlgorithmParams},
			in: func(o object) []byte {
				return append(encode(with(pskClient1.signed("headerdata", encode(o)), byPSK("client1"))), encode(chunk)...)
			}},
		{name: "entity authentication data", valid: byPSK("client1")["entityauthdata"].(object),
			in: func(o object) []byte { return pskClient1.message(object{"entityauthdata": o}, one(), hello) }},
		{name: "PSK", valid: object{"identity": "client1"}, in: func(o object) []byte { return pskClient1.message(byScheme("PSK", o), one(), hello) }},
		{name: "NONE", valid: object{"identity": "client3"}, in: by("NONE")},
		{name: "chunk", valid: chunk, in: func(o object) []byte { return append(bytes.Clone(head), encode(o)...) }},
		{name: "data of a chunk", valid: with(hello, object{"compressionalgo": "LZW", "data": []byte{'h'}}), optional: []string{"compressionalgo", "endofmsg"},
			in: func(o object) []byte {
				return pskClient1.message(byPSK("client1"), one(), o, with(hello, object{"sequencenumber": 2}))
			}},
	}
}

// inside are the objects in the data of a header.
func inside() []structure {
	member := func(name string) func(object) []byte {
		return func(o object) []byte { return fromPSK(object{name: o}) }
	}
	lists := []string{"compressionalgos", "languages", "encoderformats"}
	return []structure{
		{name: "header data", valid: one(object{"timestamp": 1, "nonreplayable": true, "nonreplayableid": 1, "handshake": false, "sender": "x", "capabilities": object{},
			"keyrequestdata": []any{pskRequest}, "userauthdata": password, "useridtoken": userToken(nil), "servicetokens": []any{serviceToken(nil)},
			"peermastertoken": object{}, "peerservicetokens": []any{}}),
			optional: []string{"timestamp", "nonreplayableid", "handshake", "capabilities", "keyrequestdata", "userauthdata", "useridtoken", "servicetokens"},
			unread:   []string{"nonreplayable", "sender", "peermastertoken", "peerservicetokens"},
			in:       func(o object) []byte { return sessionRaw.message(byToken(nil), o, hello) }},
		{name: "capabilities", valid: object{lists[0]: []any{"GZIP"}, lists[1]: []any{"en"}, lists[2]: []any{"JSON"}}, unread: lists, in: member("capabilities")},
		{name: "key request", valid: pskRequest, in: func(o object) []byte { return fromPSK(requests(o)) }},
		{name: "SYMMETRIC_WRAPPED", valid: object{"keyid": "PSK"}, in: func(o object) []byte { return fromPSK(requests(keyRequest("SYMMETRIC_WRAPPED", o))) }},
		{name: "user authentication data", valid: password, in: member("userauthdata")},
		{name: "EMAIL_PASSWORD", valid: password["authdata"].(object),
			in: func(o object) []byte {
				return fromPSK(object{"userauthdata": object{"scheme": "EMAIL_PASSWORD", "authdata": o}})
			}},
	}
}

// ofTokens are the objects that tokens are made of.
func ofTokens() []structure {
	session := func(token object) []byte {
		return sessionRaw.message(object{"mastertoken": token}, one(), hello)
	}
	user := func(token object) []byte { return fromToken(object{"useridtoken": token}) }
	service := func(token object) []byte { return fromToken(object{"servicetokens": []any{token}}) }
	issued := func(in func(object) []byte) func(object) []byte {
		return func(o object) []byte { return in(issuerKeys.signed("tokendata", encode(o))) }
	}
	data := func(token object) object { return parsed(token["tokendata"].([]byte)) }
	st := object{"name": "st", "encrypted": false, "servicedata": []byte("x"), "mtserialnumber": 7}
	return []structure{
		{name: "master token", valid: masterToken(nil), in: session},
		{name: "data of a master token", valid: data(masterToken(nil)), wrong: msl.ErrMasterTokenTokenDataParseError, in: issued(session)},
		{name: "session data", valid: sessionData, wrong: msl.ErrMasterTokenSessionDataParseError,
			optional: []string{"encryptionalgorithm", "signaturealgorithm", "signaturekey"}, unread: []string{"hmackey"},
			in: func(o object) []byte { return session(issuerKeys.token(masterMembers, "sessiondata", o)) }},
		{name: "user ID token", valid: userToken(nil), in: user},
		{name: "data of a user ID token", valid: data(userToken(nil)), wrong: msl.ErrUserIDTokenTokenDataParseError, in: issued(user)},
		{name: "user data", valid: userData, wrong: msl.ErrUserIDTokenUserDataParseError,
			in: func(o object) []byte { return user(issuerKeys.token(userMembers, "userdata", o)) }},
		{name: "service token", valid: serviceToken(st), in: service},
		{name: "data of a service token", valid: st, optional: []string{"mtserialnumber"},
			in: func(o object) []byte { return service(serviceKeys.signed("tokendata", encode(o))) }},
	}
}

func parsed(b []byte) (o object) {
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&o); err != nil {
		panic(err)
	}
	return o
}

// TestMembers takes each member of each object away, gives it another type, and adds one
// that nobody knows.
func TestMembers(t *testing.T) {
	skipWithRace(t)
	for _, s := range slices.Concat(outside(), inside(), ofTokens()) {
		t.Run(s.name, func(t *testing.T) {
			r := newRecorded(t)
			r.state.anyID = true
			accepted := func(what string, o object) {
				t.Helper()
				if e := r.serve(s.in(o)); e.served != nil || e.readErr != nil || !e.called {
					t.Errorf("%s: served %v, read %v, %s", what, e.served, e.readErr, e.wire)
				}
			}
			refused := func(what string, o object, want msl.Code) {
				t.Helper()
				e := r.serve(s.in(o))
				if e.called && e.readErr == nil {
					t.Errorf("%s: accepted, want %v", what, want)
				} else if got := r.refusal(t, e); got.InternalCode != want.Internal() {
					t.Errorf("%s: %d %s, want %v", what, got.InternalCode, got.ErrorMsg, want)
				}
			}
			accepted("valid", s.valid)
			accepted("unknown member", with(s.valid, object{"x": object{"y": []any{1.5e300, "z"}}}))
			for name, v := range s.valid {
				absent, own := s.absent[name]
				unread := slices.Contains(s.unread, name)
				switch without := with(s.valid, object{name: nil}); {
				case own:
					refused("no "+name, without, absent)
				case unread || slices.Contains(s.optional, name):
					accepted("no "+name, without)
				default:
					refused("no "+name, without, s.wrong)
				}
				for _, other := range otherTypes(v) {
					if what, changed := fmt.Sprintf("%s is %#v", name, other), with(s.valid, object{name: other}); unread {
						accepted(what, changed)
					} else {
						refused(what, changed, s.wrong)
					}
				}
			}
		})
	}
}

// otherTypes are values of other types than v; for an integer, one is a fraction.
func otherTypes(v any) (list []any) {
	for _, other := range []any{"?", 1, 1.5, true, object{}, []any{}} {
		if kindOf(other) != kindOf(v) || other == 1.5 {
			list = append(list, other)
		}
	}
	return list
}

// kindOf is the kind of a JSON value.
func kindOf(v any) string {
	switch b := must(json.Marshal(v)); b[0] {
	case '{', '[', '"':
		return string(b[:1])
	case 't', 'f':
		return "boolean"
	}
	return "number"
}
