package msl_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// hasCode fails unless err says which protocol error it is. A parser that lets
// another error through would blame the server for what a peer sent.
func hasCode(t *testing.T, err error) {
	t.Helper()
	var e *msl.Error
	if err != nil && (!errors.As(err, &e) || e.Code == msl.ErrInternalException) {
		t.Errorf("not an error of the protocol: %v", err)
	}
}

func FuzzEnvelope(f *testing.F) {
	var v struct {
		Envelopes []envelopeFields `json:"ciphertext_envelopes"`
		Sign      []struct {
			Input []byte `json:"input_b64"`
		} `json:"signature_parse"`
	}
	readVectors(f, "spec/envelopes.json", &v)
	for _, e := range v.Envelopes {
		f.Add(e.Encoding.Bytes)
	}
	for _, s := range v.Sign {
		f.Add(s.Input)
	}
	f.Add(serviceKeys.encrypt([]byte("hello")))
	key := symmetric(f, newStore(f), serviceKeys)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := msl.ParseEnvelope(b)
		hasCode(t, err)
		if err == nil {
			again, err := msl.ParseEnvelope(e.Encode())
			if err != nil || !sameEnvelope(again, e) {
				t.Errorf("%+v is read again as %+v, %v", e, again, err)
			}
		}
		_, err = key.Decrypt(b)
		hasCode(t, err)
		if err := key.Verify([]byte("data"), b); err == nil && !bytes.Equal(msl.BareSignature(b), serviceKeys.sign([]byte("data"))) {
			t.Errorf("%q verifies", b)
		}
	})
}

func FuzzMasterToken(f *testing.F) {
	for _, c := range readTokens(f).MasterTokens {
		f.Add(c.Encoding.Bytes)
	}
	for _, c := range masterCases() {
		f.Add(encode(c.token))
	}
	issuer := newIssuer(f, true)
	f.Fuzz(func(t *testing.T, b []byte) {
		token, err := msl.ParseMasterToken(b)
		if hasCode(t, err); err != nil {
			return
		}
		token.NewerThan(token)
		session, err := issuer.Open(token)
		if hasCode(t, err); err == nil {
			session.Release()
		}
	})
}

// FuzzSessionData opens sessiondata that only a holder of the issuer's keys can make.
func FuzzSessionData(f *testing.F) {
	f.Add(encode(sessionData), int64(1), int64(7))
	f.Add([]byte(`{"sealed":1,"identity":"x","sealedencryptionkey":"","sealedsignaturekey":""}`), int64(0), int64(1)<<53)
	issuer := newIssuer(f, true)
	f.Fuzz(func(t *testing.T, inside []byte, sequence, serial int64) {
		members := with(masterMembers, object{"sequencenumber": sequence, "serialnumber": serial})
		token, err := msl.ParseMasterToken(encode(issuerKeys.token(members, "sessiondata", inside)))
		if hasCode(t, err); err != nil {
			return
		}
		session, err := issuer.Open(token)
		if hasCode(t, err); err == nil {
			session.Release()
		}
	})
}

func FuzzUserIDToken(f *testing.F) {
	for _, c := range readTokens(f).UserIDTokens {
		f.Add(c.Encoding.Bytes)
	}
	for _, c := range userCases() {
		f.Add(encode(c.token))
	}
	issuer := newIssuer(f, false)
	f.Fuzz(func(t *testing.T, b []byte) {
		token, err := msl.ParseUserIDToken(b)
		if hasCode(t, err); err != nil {
			return
		}
		user, err := issuer.OpenUser(token)
		if hasCode(t, err); err == nil && user == "" {
			t.Error("a user without a name")
		}
	})
}

func FuzzServiceToken(f *testing.F) {
	for _, c := range readTokens(f).ServiceTokens {
		f.Add(c.Encoding.Bytes)
	}
	for _, c := range serviceCases() {
		f.Add(encode(c.token))
	}
	key := symmetric(f, newStore(f), serviceKeys)
	keys := msl.ServiceTokenKeys{"st.null": msl.Null{}, "": key}
	mt, uit := &msl.MasterToken{SerialNumber: 7}, &msl.UserIDToken{SerialNumber: 8, MasterToken: 7}
	f.Fuzz(func(t *testing.T, b []byte) {
		token, err := msl.ParseServiceToken(b, keys, mt, uit)
		if err == nil && token.MasterToken != msl.Unbound && token.MasterToken != 7 {
			t.Errorf("bound to %d", token.MasterToken)
		}
		// The inside of a token, signed, so that it is opened too.
		signed := encode(serviceKeys.signed("tokendata", b))
		_, err = msl.ParseServiceToken(signed, keys, mt, uit)
		hasCode(t, err)
	})
}

// recordedHeaders are the insides of all recorded headers.
func recordedHeaders(f *testing.F) {
	for _, name := range []string{"messages", "messages_p2p", "negative"} {
		var v struct{ Cases []struct{ HeaderData string } }
		readVectors(f, "spec/"+name+".json", &v)
		for _, c := range v.Cases {
			f.Add([]byte(c.HeaderData))
		}
	}
}

func FuzzHeader(f *testing.F) {
	recordedHeaders(f)
	r := newRecorded(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := msl.ReadHeader(b, r.server.Users, r.server.KeyExchanges)
		hasCode(t, err)
		if err == nil && (id < 0 || id > 1<<53) {
			t.Errorf("message id %d", id)
		}
	})
}

func FuzzErrorHeader(f *testing.F) {
	f.Add([]byte(`{"timestamp":1,"messageid":2,"errorcode":3,"internalcode":101000,"errormsg":"x","usermsg":"y"}`))
	f.Add([]byte(`{"messageid":9007199254740992,"errorcode":99,"internalcode":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := msl.ReadError(b)
		if hasCode(t, err); err != nil {
			return
		}
		if e.Response < msl.Fail || e.Response > msl.SSOTokenRejected || e.MessageID < 0 || e.MessageID > 1<<53 {
			t.Errorf("%+v", e)
		}
		_ = e.Error()
	})
}

func FuzzChunk(f *testing.F) {
	f.Add(encode(hello))
	f.Add(encode(with(hello, object{"compressionalgo": "GZIP", "data": zeros(1000)})))
	f.Add(encode(with(hello, object{"compressionalgo": "LZW", "data": []byte{0x61, 0x80, 0}})))
	f.Add([]byte(`{"sequencenumber":2,"messageid":1,"data":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		data, err := msl.ReadChunk(bytes.Clone(b)) // which it decodes in place
		if hasCode(t, err); err != nil {
			return
		}
		if len(data) > 200*len(b) {
			t.Errorf("%d bytes became %d", len(b), len(data))
		}
		var members map[string]any
		if err := json.Unmarshal(b, &members); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		text := strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace(members["data"].(string))
		if want, err := base64.StdEncoding.DecodeString(text); err != nil || members["compressionalgo"] == nil && !bytes.Equal(data, want) {
			t.Errorf("%s: %q, and by another parser %q, %v", b, data, want, err)
		}
	})
}

func FuzzKeyData(f *testing.F) {
	var v struct {
		Cases []struct{ Request, Response encoding }
	}
	readVectors(f, "spec/keyx.json", &v)
	for _, c := range v.Cases {
		for _, b := range [][]byte{c.Request.Bytes, c.Response.Bytes} {
			var data schemed
			if json.Unmarshal(b, &data) == nil {
				f.Add([]byte(data.KeyData))
			}
		}
	}
	f.Add([]byte(`{"keyid":"SESSION"}`))
	r, clients := newRecorded(f), clientKeys(f)
	ctx, from := context.Background(), msl.Requester{Identity: "client1"}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, x := range r.server.KeyExchanges {
			err := x.Check(b)
			if hasCode(t, err); err != nil {
				continue
			}
			keys, _, err := x.Respond(ctx, from, b)
			if hasCode(t, err); err == nil {
				keys.Release()
			}
		}
		for _, x := range clients {
			offer, err := x.Offer(ctx, from)
			if err != nil {
				t.Fatal(err)
			}
			outcome, err := offer.Accept(ctx, b)
			if hasCode(t, err); err == nil {
				outcome.Keys.Release()
			}
			if keys, err := x.Resume(ctx, b); err == nil {
				keys.Release()
			}
		}
		if n, _ := r.store.Live(); n > 6 { // the key set of client1 stays open
			t.Errorf("%d keys are open", n)
		}
	})
}

func FuzzAuthData(f *testing.F) {
	var v struct{ Cases []struct{ Encoding encoding } }
	for _, name := range []string{"entityauthdata", "userauthdata"} {
		readVectors(f, "spec/"+name+".json", &v)
		for _, c := range v.Cases {
			var data schemed
			if json.Unmarshal(c.Encoding.Bytes, &data) == nil {
				f.Add([]byte(data.AuthData))
			}
		}
	}
	f.Add(certificate(f, "client7").RawSubject)
	r := newRecorded(f)
	user := &userauth.EmailPassword{Verify: verifyPassword}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range r.server.Peers {
			sender, release, err := s.Open(context.Background(), b)
			if hasCode(t, err); err != nil {
				continue
			}
			if sender.Opener == nil {
				t.Error("a sender without keys")
			}
			release()
		}
		if user.Check(b) == nil {
			_, _ = user.Authenticate(context.Background(), "client1", b)
		}
		if name, err := entityauth.DistinguishedName(b); err == nil && bytes.ContainsRune([]byte(name), 0) {
			t.Errorf("%q", name)
		}
		if c, err := x509.ParseCertificate(b); err == nil {
			_, _ = entityauth.DistinguishedName(c.RawSubject)
		}
	})
}

func FuzzServe(f *testing.F) {
	for _, whole := range wholeMessages(f) {
		f.Add(whole)
	}
	var v struct {
		Cases []struct {
			Message []byte `json:"message_b64"`
		}
	}
	readVectors(f, "spec/negative.json", &v)
	for _, c := range v.Cases {
		f.Add(c.Message)
	}
	r := newRecorded(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		e := r.serve(b)
		var peer *msl.PeerError
		switch {
		case e.served == nil && len(e.wire) == 0:
			t.Error("neither answer nor error")
		case e.served != nil && len(e.wire) > 0, e.served != nil && !errors.Is(e.served, msl.ErrTruncated) && !errors.As(e.served, &peer):
			t.Errorf("%v, and %d bytes of an answer", e.served, len(e.wire))
		case e.served == nil && !e.called && !bytes.Contains(e.wire, []byte("headerdata")):
			if got := r.refusal(t, e); got.InternalCode == 100000+int(msl.ErrInternalException) {
				t.Errorf("answered with an internal failure: %s", b)
			}
		}
		if n, _ := r.store.Live(); n > 40 {
			t.Errorf("%d keys are open", n)
		}
	})
}

// FuzzServeInside sends messages that a peer with keys can protect.
func FuzzServeInside(f *testing.F) {
	for _, h := range []object{one(), one(requests(pskRequest)), one(object{"userauthdata": password}), one(object{"nonreplayableid": 5}),
		one(object{"useridtoken": userToken(nil), "servicetokens": []any{serviceToken(nil)}}), one(object{"handshake": true}, requests(pskRequest))} {
		f.Add(encode(h), encode(hello))
	}
	f.Add([]byte(`{}`), []byte(`{}`))
	r := newRecorded(f)
	// Every password is right: after many wrong ones, others have to wait.
	r.server.Users = []msl.UserScheme{&userauth.EmailPassword{Verify: func(_ context.Context, email string, _ []byte) (string, error) { return email, nil }}}
	f.Fuzz(func(t *testing.T, header, chunk []byte) {
		for _, message := range [][]byte{
			pskClient1.message(byPSK("client1"), header, chunk),
			sessionRaw.message(byToken(nil), header, chunk),
			sessionRaw.message(byToken(expired), header, chunk),
		} {
			e := r.serve(message)
			if e.served != nil && !errors.Is(e.served, msl.ErrTruncated) {
				t.Errorf("%v", e.served)
			}
			if bytes.Contains(e.wire, []byte("errordata")) {
				if got := r.refusal(t, e); got.InternalCode == 100000+int(msl.ErrInternalException) {
					t.Errorf("answered with an internal failure: %s %s", header, chunk)
				}
			}
		}
	})
}
