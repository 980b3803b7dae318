package msl_test

import (
	"encoding/json"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// TestRewrittenHeaders parses every recorded header that can be read, writes it
// and parses it again: of the vectors, and of the requests in the conversations.
func TestRewrittenHeaders(t *testing.T) {
	skipWithRace(t)
	r := newRecorded(t).withEveryExchange()
	r.server.Users = append(r.server.Users, &userauth.UserIDToken{Issuer: r.server.Issuer})
	rewritten := 0
	check := func(name string, header []byte, message []byte, peerToPeer bool) {
		t.Helper()
		var mt *msl.MasterToken
		if token, ok := parts(t, message)[0].who["mastertoken"].(json.RawMessage); ok {
			mt = must(msl.ParseMasterToken(token))
		}
		rewritten++
		if err := msl.RewriteHeader(header, r.server, mt, peerToPeer); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, file := range []string{"messages", "messages_p2p"} {
		var v struct {
			Cases []struct {
				messageCase
				HeaderData string
			}
		}
		readVectors(t, "spec/"+file+".json", &v)
		for _, c := range v.Cases {
			if c.Parsed.OK != nil {
				check(c.Name, []byte(c.HeaderData), c.Message.Bytes, file == "messages_p2p")
			}
		}
	}
	for _, c := range readConversations(t) {
		for i, e := range c.exchanges {
			for message, m := range map[string]recordedMessage{string(c.request(t, i)): e.Req, string(c.response(t, i)): e.Resp} {
				if m.HeaderData == nil {
					continue
				}
				part := parts(t, []byte(message))[0]
				header, err := part.data, error(nil)
				switch {
				case m.MasterToken != nil:
					header, err = m.MasterToken.raw().decrypt(part.data)
				case m.EntityAuthData != nil && m.EntityAuthData.Scheme == "PSK":
					header, err = pskClient1.decrypt(part.data)
				}
				if err != nil {
					t.Fatal(err)
				}
				check(c.label, header, []byte(message), false)
			}
		}
	}
	if rewritten < 200 {
		t.Errorf("%d headers", rewritten)
	}
}

func TestRewrittenChunks(t *testing.T) {
	var v struct{ Cases []struct{ Payloads []string } }
	readVectors(t, "spec/negative.json", &v)
	rewritten := 0
	for _, c := range v.Cases {
		for _, p := range c.Payloads {
			if _, err := msl.ReadChunk([]byte(p)); err == nil {
				rewritten++
				if err := msl.RewriteChunk([]byte(p)); err != nil {
					t.Errorf("%s: %v", p, err)
				}
			}
		}
	}
	for _, o := range []object{hello, with(hello, object{"endofmsg": nil}), with(hello, object{"compressionalgo": "GZIP"}), {"sequencenumber": 0, "messageid": int64(1) << 53, "data": "", "endofmsg": true}} {
		if err := msl.RewriteChunk(encode(o)); err != nil {
			t.Error(err)
		}
	}
	if rewritten == 0 {
		t.Error("no recorded chunk")
	}
}

func TestRewrittenErrors(t *testing.T) {
	for _, code := range msl.Codes() {
		for _, user := range []string{"", "Zoë"} {
			for _, id := range []int64{0, 1, 1 << 53} {
				e, err := msl.ReadError(msl.EncodeError(code, id, user))
				if err != nil || e.Code != code || e.Response != code.Response() || e.MessageID != id || e.User != user || e.Message != code.Text() {
					t.Errorf("%v: read %+v, %v", code, e, err)
				}
			}
		}
	}
}

func TestRewrittenCapabilities(t *testing.T) {
	var v struct{ Encodings []encoding }
	readVectors(t, "spec/capabilities.json", &v)
	for _, e := range append(v.Encodings, encoding{[]byte(`{"compressionalgos":["X","LZW","GZIP"],"languages":["de","en"],"encoderformats":["CBOR"]}`)}) {
		if err := msl.RewriteCapabilities(e.Bytes); err != nil {
			t.Error(err)
		}
	}
}
