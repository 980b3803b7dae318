package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// wholeMessages are valid messages of every kind of sender.
func wholeMessages(t testing.TB) map[string][]byte {
	t.Helper()
	var v struct{ Cases []messageCase }
	readVectors(t, "spec/messages.json", &v)
	all := map[string][]byte{
		"token":  fromToken(object{"useridtoken": userToken(nil), "servicetokens": []any{serviceToken(nil)}}),
		"chunks": pskClient1.message(byPSK("client1"), one(), with(hello, object{"endofmsg": nil}), with(hello, object{"sequencenumber": 2})),
	}
	for _, c := range v.Cases {
		if c.Parsed.OK != nil && !c.Parsed.OK.KeyResponseData && !unconfigured(c.Name) && len(c.Message.Bytes) < 4000 {
			all[c.Name] = c.Message.Bytes
		}
	}
	return all
}

// received is what the application gets of a message: nothing, or all of it.
func (r *recorded) received(t *testing.T, message []byte) (msl.Received, error) {
	t.Helper()
	return r.server.Receive(context.Background(), bytes.NewReader(message))
}

// everyByte is how far apart the bytes are that a test of each byte tries: a prime number, or
// with MSL_SOAK=1 each one.
func everyByte() int {
	if soak() {
		return 1
	}
	return 3
}

// TestTruncatedMessages cuts messages after each byte, or everyByte.
func TestTruncatedMessages(t *testing.T) {
	skipWithRace(t)
	r := newRecorded(t)
	r.state.anyID = true
	for name, whole := range wholeMessages(t) {
		if _, err := r.received(t, whole); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		handshake := name == "handshake, two keyrequestdata" // ends with its header
		for size := 0; size < len(whole); size += everyByte() {
			_, err := r.received(t, whole[:size])
			var refused *msl.Error
			if !errors.Is(err, msl.ErrTruncated) && !errors.As(err, &refused) {
				t.Errorf("%s: %d of %d bytes: %v", name, size, len(whole), err)
			}
			if handshake && !errors.Is(err, msl.ErrMSLParseError) {
				t.Errorf("%s: %d of %d bytes: %v", name, size, len(whole), err)
			}
		}
	}
}

// A truncated message is answered with an error while its header is read, and
// not at all afterwards.
func TestTruncatedOnTheWire(t *testing.T) {
	r := newRecorded(t)
	head := len(pskClient1.message(byPSK("client1"), one()))
	whole := fromPSK()
	for size := 1; size < len(whole); size += 7 {
		if size < head {
			r.mustRefuse(t, whole[:size], msl.ErrMSLParseError, -1)
			continue
		}
		r.mustTruncate(t, whole[:size], "")
	}
}

// slowly gives a message byte by byte.
type slowly struct{ r io.Reader }

func (s slowly) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), 1)]) }

func TestMessagesByteByByte(t *testing.T) {
	r := newRecorded(t)
	r.state.anyID = true
	for name, whole := range wholeMessages(t) {
		want, err := r.received(t, whole)
		got, err2 := r.server.Receive(context.Background(), slowly{bytes.NewReader(whole)})
		if err := errors.Join(err, err2); err != nil || !bytes.Equal(got.Payload, want.Payload) || got.MessageID != want.MessageID {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFlippedBits changes one bit at a time, of each byte or everyByte. The protection of the message must detect
// that, except where the bit means nothing.
func TestFlippedBits(t *testing.T) {
	skipWithRace(t)
	r := newRecorded(t)
	r.state.anyID = true
	random := rand.New(rand.NewPCG(1, 2))
	for name, whole := range wholeMessages(t) {
		want, err := r.received(t, whole)
		if err != nil || name == "entityauth NONE" || name == "handshake, two keyrequestdata" {
			continue // nothing protects the one, and the other ends before its end
		}
		for i := 0; i < len(whole); i += everyByte() {
			changed := bytes.Clone(whole)
			changed[i] ^= 1 << random.IntN(8)
			got, err := r.received(t, changed)
			if err != nil {
				continue
			}
			// Unused bits of Base64, blanks, or names of members that are ignored.
			if got.MessageID != want.MessageID || got.Identity != want.Identity || got.User != want.User ||
				!bytes.Equal(got.Payload, want.Payload) || got.Renewable != want.Renewable || got.NonReplayableID != want.NonReplayableID {
				t.Errorf("%s: bit of byte %d: read %+v", name, i, got)
			}
		}
	}
}

// TestFlippedBitsOfTokens changes tokens inside messages that are otherwise intact, under
// keys that the attacker has.
func TestFlippedBitsOfTokens(t *testing.T) {
	issuer := newIssuer(t, true)
	whole := encode(masterToken(nil))
	start := bytes.Index(whole, []byte(`"signature":"`)) + len(`"signature":"`)
	for i := range whole {
		changed := bytes.Clone(whole)
		changed[i] ^= 1
		token, err := msl.ParseMasterToken(changed)
		if err != nil {
			continue
		}
		session, err := issuer.Open(token)
		if err != nil {
			continue
		}
		session.Release()
		if i < start+42 { // the last character of the signature has unused bits
			t.Errorf("bit of byte %d changed, and the token opens: %s", i, changed)
		}
	}
}

func TestGarbage(t *testing.T) {
	r := newRecorded(t)
	random := rand.New(rand.NewPCG(3, 4))
	whole := fromToken(object{"useridtoken": userToken(nil)})
	for range 2000 {
		junk := bytes.Clone(whole)
		for range 1 + random.IntN(8) { // pieces moved, doubled and cut
			a, b := random.IntN(len(junk)), random.IntN(len(junk))
			a, b = min(a, b), max(a, b)
			switch random.IntN(3) {
			case 0:
				junk = append(junk[:a:a], junk[b:]...)
			case 1:
				junk = append(junk[:b:b], junk[a:]...)
			default:
				copy(junk[a:], junk[b:])
			}
			if len(junk) == 0 {
				junk = []byte{'{'}
			}
		}
		if got, err := r.received(t, junk); err == nil && string(got.Payload) != "hello" {
			t.Errorf("%s is read as %+v", junk, got)
		}
	}
	for range 2000 {
		junk := make([]byte, random.IntN(300))
		for i := range junk {
			junk[i] = byte(random.Uint32())
		}
		if _, err := r.received(t, append([]byte("{"), junk...)); !errors.Is(err, msl.ErrMSLParseError) {
			t.Errorf("%q: %v", junk, err)
		}
	}
}

// A sender that proves nothing gets a limited number of signatures.
func TestBoundOnSignedRefusals(t *testing.T) {
	r := newRecorded(t)
	r.server.Limits = msl.Limits{ErrorsPerSecond: 10, ErrorsPerSource: 3}
	answered, begin := 0, time.Now()
	for range 100 {
		switch e := r.serve([]byte("garbage")); {
		case e.served == nil:
			answered++
		case !errors.Is(e.served, msl.ErrNoAnswer) || len(e.wire) > 0:
			t.Fatalf("%v, %s", e.served, e.wire)
		}
	}
	if most := 3 + 3*int(time.Since(begin)/time.Second+1); answered < 3 || answered > most {
		t.Errorf("%d signed refusals", answered)
	}
	if e := r.serve(fromToken()); e.served != nil || !e.called {
		t.Errorf("who has a token is not served: %v", e.served)
	}
}

// TestDamagedAnswers lets the client read changed answers.
func TestDamagedAnswers(t *testing.T) {
	skipWithRace(t)
	for _, c := range readConversations(t) {
		if c.label != "PSK-SYMMETRIC_WRAPPED_PSK" && c.label != "err-bad-password" {
			continue
		}
		e, whole := c.exchanges[0], c.response(t, 0)
		client := recordedClient(t, c.label)
		read := func(b []byte) (string, error) {
			answer, err := client.Answer(context.Background(), &msl.Request{User: "user1", Recipient: "server1"},
				e.Req.HeaderData.MessageID, io.NopCloser(bytes.NewReader(b)))
			if err != nil {
				return "", err
			}
			defer answer.Body.Close()
			data, err := io.ReadAll(answer.Body)
			return string(data), err
		}
		for size := 0; size < len(whole); size += 3 {
			var peer *msl.PeerError
			if data, err := read(whole[:size]); err == nil || errors.As(err, &peer) || data != "" {
				t.Errorf("%s: %d bytes are read as %q, %v", c.label, size, data, err)
			}
		}
		store := client.KeyExchanges[1].(*keyx.AsymmetricWrapped).Store.(*soft.Store)
		for i := 0; i < len(whole); i += 3 {
			changed := bytes.Clone(whole)
			changed[i] ^= 4
			var peer *msl.PeerError
			data, err := read(changed)
			if err == nil && data != e.Resp.payload() || errors.As(err, &peer) && int(peer.Code) != e.Resp.ErrorData.InternalCode-100000 {
				t.Errorf("%s: byte %d: read %q, %v", c.label, i, data, err)
			}
		}
		if n, _ := store.Live(); n > 2 {
			t.Errorf("%s: %d session keys are open", c.label, n)
		}
		client.Close()
		if n, _ := store.Live(); n != 0 {
			t.Errorf("%s: %d session keys are still open", c.label, n)
		}
	}
}
