package msl_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// odd writes an object in an unusual form: members in reverse order, blanks, needless
// escapes, and a member that is not part of the protocol.
func odd(o object) []byte {
	var out bytes.Buffer
	out.WriteString("{ ")
	for _, name := range slices.SortedFunc(maps.Keys(o), func(a, b string) int { return cmp.Compare(b, a) }) {
		fmt.Fprintf(&out, "\"\\u%04x%s\"\t:\n%s ,", name[0], name[1:], oddValue(o[name]))
	}
	out.WriteString(` "x-unknown" : [ 1, { "a" : "\u00e9" } ] }`)
	return out.Bytes()
}

func oddValue(v any) []byte {
	switch v := v.(type) {
	case object:
		return odd(v)
	case json.RawMessage:
		return v
	}
	text := string(encode([]any{v})) // in brackets, as encode takes bytes for encoded
	text = text[1 : len(text)-1]
	if strings.HasPrefix(text, `"`) {
		text = strings.NewReplacer("/", `\/`, "A", `\u0041`).Replace(text)
	}
	return []byte(text)
}

// oddToken signs token data in an unusual form, and is itself in one.
func (k rawKeys) oddToken(members object) json.RawMessage {
	return odd(k.signed("tokendata", odd(members)))
}

// oddTokens are a master token, a user ID token and service tokens that belong
// together, one of them under unknown keys.
func oddTokens() (mt, uit json.RawMessage, services []json.RawMessage) {
	inner := func(members object, name string, inside object) json.RawMessage {
		return issuerKeys.oddToken(with(members, object{name: issuerKeys.encrypt(odd(inside))}))
	}
	mt = inner(masterMembers, "sessiondata", sessionData)
	uit = inner(userMembers, "userdata", userData)
	for i, keys := range []rawKeys{serviceKeys, pskClient2} {
		services = append(services,
			keys.oddToken(object{"name": "entity" + strconv.Itoa(i), "mtserialnumber": 7, "encrypted": true, "servicedata": keys.encrypt([]byte("data"))}),
			keys.oddToken(object{"name": "user" + strconv.Itoa(i), "mtserialnumber": 7, "uitserialnumber": 8, "encrypted": false, "servicedata": []byte("data")}))
	}
	return mt, uit, services
}

// oddMessage is a message under mt.
func oddMessage(mt json.RawMessage, header object, chunks ...any) []byte {
	var services []string
	for _, s := range header["servicetokens"].([]json.RawMessage) {
		services = append(services, string(s))
	}
	header = with(header, object{"servicetokens": json.RawMessage("[" + strings.Join(services, "\n,") + "]")})
	part := sessionRaw.signed("headerdata", sessionRaw.encrypt(odd(header)))
	part["mastertoken"] = mt
	out := odd(part)
	for _, c := range chunks {
		out = append(out, encode(sessionRaw.signed("payload", sessionRaw.encrypt(encode(c))))...)
	}
	return out
}

// A signedBytes is what must come back as it was.
type signedBytes struct{ TokenData, Signature []byte }

// sameTokens compares what was signed, in any order.
func sameTokens(t *testing.T, what string, got, want []json.RawMessage) {
	t.Helper()
	read := func(tokens []json.RawMessage) (list []string) {
		for _, raw := range tokens {
			var s signedBytes
			if err := json.Unmarshal(raw, &s); err != nil {
				t.Fatal(err)
			}
			list = append(list, fmt.Sprintf("%s %x", s.TokenData, s.Signature))
		}
		slices.Sort(list)
		return list
	}
	if g, w := read(got), read(want); !slices.Equal(g, w) {
		t.Errorf("%s came back as\n%s\nwant\n%s", what, g, w)
	}
}

// sameMessage finds the tokens in a message under the session keys.
func sameMessage(t *testing.T, message []byte, mt, uit json.RawMessage, services []json.RawMessage) {
	t.Helper()
	var outer wireHeader
	if err := json.NewDecoder(bytes.NewReader(message)).Decode(&outer); err != nil {
		t.Fatal(err)
	}
	if outer.MasterToken == nil {
		t.Fatalf("no master token in %s", message)
	}
	inside, err := sessionRaw.decrypt(outer.HeaderData)
	var h answerHeader
	if err := errors.Join(err, sessionRaw.verify(outer.HeaderData, *outer.Signature), json.Unmarshal(inside, &h)); err != nil {
		t.Fatal(err)
	}
	sameTokens(t, "master token", []json.RawMessage{outer.MasterToken}, []json.RawMessage{mt})
	sameTokens(t, "user id token", []json.RawMessage{h.UserIDToken}, []json.RawMessage{uit})
	sameTokens(t, "service tokens", h.ServiceTokens, services)
}

// TestServerReturnsTokens sends tokens in an unusual form. The server sends them back
// unchanged, when it reads them and when it has cached them.
func TestServerReturnsTokens(t *testing.T) {
	r := newRecorded(t)
	mt, uit, services := oddTokens()
	message := oddMessage(mt, object{"messageid": 1, "renewable": false, "useridtoken": uit, "servicetokens": services}, hello)
	for range 2 {
		e := r.serve(message)
		if e.served != nil || !e.called || e.message.User != "user1@foo.com" || len(e.message.ServiceTokens) != 4 {
			t.Fatalf("%+v", e)
		}
		for _, s := range e.message.ServiceTokens {
			if ours := strings.HasSuffix(s.Name, "0"); s.Opened != ours || ours && string(s.Data) != "data" {
				t.Errorf("service token %+v", s)
			}
		}
		sameMessage(t, e.wire, mt, uit, services)
	}
}

// TestClientReturnsTokens gives a client tokens in an unusual form. It sends them
// unchanged.
func TestClientReturnsTokens(t *testing.T) {
	mt, uit, services := oddTokens()
	store := newStore(t)
	session := symmetric(t, store, sessionRaw)
	var request []byte
	client := &msl.Client{Local: localSchemes(t)["PSK"], Time: newRecorded(t).clock, ServiceTokens: msl.ServiceTokenKeys{"": symmetric(t, store, serviceKeys)},
		Transport: transportFunc(func(_ context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
			var out bytes.Buffer
			if err := write(&out); err != nil {
				return nil, err
			}
			request = out.Bytes()
			inside, err := sessionRaw.decrypt(parts(t, request)[0].data)
			var sent answerHeader
			if err := errors.Join(err, json.Unmarshal(inside, &sent)); err != nil {
				return nil, err
			}
			id := *sent.MessageID + 1
			return io.NopCloser(bytes.NewReader(oddMessage(mt, object{"messageid": id, "renewable": false, "useridtoken": uit, "servicetokens": services},
				with(hello, object{"messageid": id})))), nil
		})}
	t.Cleanup(func() { client.Close() })
	if err := client.Hold(t.Context(), mt, msl.NewSessionKeys(session.Encryption, session.MAC)); err != nil {
		t.Fatal(err)
	}
	client.UserAuth = func(context.Context, string, msl.ResponseCode) (*msl.UserAuthData, error) {
		return &msl.UserAuthData{Scheme: "EMAIL_PASSWORD", AuthData: encode(password["authdata"])}, nil
	}
	for range 2 { // the first answer brings the tokens
		if _, got, err := send(t, client, &msl.Request{User: "me", Body: msl.BytesBody([]byte("x"))}); err != nil || got != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	sameMessage(t, request, mt, uit, services)
}

// A keptRecord is a client's state in memory, which a restart finds again.
type keptRecord struct{ record msl.ClientRecord }

func (k *keptRecord) Load(context.Context) (msl.ClientRecord, error) { return k.record, nil }
func (k *keptRecord) Save(_ context.Context, r msl.ClientRecord) error {
	k.record = r
	return nil
}
func (k *keptRecord) NextID(context.Context, int64) (int64, error) { return 1, nil }

// TestRestartReturnsTokens takes the tokens of a recorded answer through a
// restart.
func TestRestartReturnsTokens(t *testing.T) {
	answer := readFile(t, "conversations/PSK-SYMMETRIC_WRAPPED_PSK.resp.1")
	c := conversation{label: "PSK-SYMMETRIC_WRAPPED_PSK"}
	readVectors(t, "conversations/"+c.label+".decoded.json", &c.exchanges)
	token := c.exchanges[0].Resp.HeaderData.KeyResponseData.MasterToken
	var h struct {
		answerHeader
		KeyResponseData struct{ MasterToken json.RawMessage }
	}
	if err := json.Unmarshal(parts(t, answer)[0].data, &h); err != nil {
		t.Fatal(err)
	}
	state := &keptRecord{}
	client := recordedClient(t, c.label)
	client.State = state
	response, err := client.Answer(t.Context(), &msl.Request{User: "user1"}, *h.MessageID-1, io.NopCloser(bytes.NewReader(answer)))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	again := &msl.Client{Local: client.Local, KeyExchanges: client.KeyExchanges, State: state, ServiceTokens: client.ServiceTokens}
	t.Cleanup(func() { again.Close() })
	var request []byte
	again.Transport = transportFunc(func(_ context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
		var out bytes.Buffer
		err := write(&out)
		request = out.Bytes()
		return nil, errors.Join(err, errors.ErrUnsupported)
	})
	if _, _, err := send(t, again, &msl.Request{User: "user1", Body: msl.BytesBody([]byte("x"))}); !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
	raw := token.raw()
	var outer wireHeader
	if err := json.NewDecoder(bytes.NewReader(request)).Decode(&outer); err != nil {
		t.Fatal(err)
	}
	inside, err := raw.decrypt(outer.HeaderData)
	var sent answerHeader
	if err := errors.Join(err, json.Unmarshal(inside, &sent)); err != nil {
		t.Fatal(err)
	}
	sameTokens(t, "master token", []json.RawMessage{outer.MasterToken}, []json.RawMessage{h.KeyResponseData.MasterToken})
	sameTokens(t, "user id token", []json.RawMessage{sent.UserIDToken}, []json.RawMessage{h.UserIDToken})
	sameTokens(t, "service tokens", sent.ServiceTokens, h.ServiceTokens)
	if len(sent.ServiceTokens) != 2 || sent.UserIDToken == nil {
		t.Error("tokens are missing")
	}
}
