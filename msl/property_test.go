package msl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A protectedPart is an object of bytes and a signature over them.
type protectedPart struct {
	who  object // of a header
	name string // of the member with the bytes
	data []byte
	sign []byte
}

func (p protectedPart) encode() []byte {
	return encode(with(with(p.who, object{p.name: p.data}), object{"signature": p.sign}))
}

// protect makes a part as its sender does.
func protect(t testing.TB, key msl.Protector, who object, name string, inside any) protectedPart {
	t.Helper()
	data, err := key.Encrypt(encode(inside))
	signature, err2 := key.Sign(data)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return protectedPart{who, name, data, signature}
}

// parts reads the parts of a message again.
func parts(t testing.TB, message []byte) (all []protectedPart) {
	t.Helper()
	for stream := json.NewDecoder(bytes.NewReader(message)); ; {
		raw := map[string]json.RawMessage{}
		if err := stream.Decode(&raw); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		p := protectedPart{who: object{}}
		for name, value := range raw {
			var err error
			switch name {
			case "headerdata", "errordata", "payload":
				p.name, err = name, json.Unmarshal(value, &p.data)
			case "signature":
				err = json.Unmarshal(value, &p.sign)
			default:
				p.who[name] = value
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, p)
	}
}

// sampled is how many bits are flipped where there are too many to flip each.
func sampled() int {
	if soak() {
		return 128
	}
	return 24
}

// tokenBits is up to how many bits of a token each one is flipped.
const tokenBits = 2000

// exhaustive is up to how many bits of a message each one is flipped: those of a MAC, or
// with MSL_SOAK=1 those of a small message.
func exhaustive() int {
	if soak() {
		return 2000
	}
	return 256
}

// soak reports whether the long form of tests is wanted.
func soak() bool { return os.Getenv("MSL_SOAK") != "" }

// flips calls do with b after each flip of one bit: of each, or of some where
// there are more than most.
func flips(b []byte, most int, do func(changed []byte)) {
	bits, random := 8*len(b), rand.New(rand.NewPCG(5, uint64(len(b))))
	n := bits
	if bits > most {
		n = sampled()
	}
	for i := range n {
		if bits > most {
			i = random.IntN(bits)
		}
		b[i/8] ^= 1 << (i % 8)
		do(b)
		b[i/8] ^= 1 << (i % 8)
	}
}

// flipParts flips bits in what is signed and in the signatures of a message, and
// expects the code that judge gives for the part.
func flipParts(t *testing.T, all []protectedPart, most int, code func(name string) msl.Code, read func(message []byte) error) {
	t.Helper()
	encoded := func(some []protectedPart) (m []byte) {
		for _, p := range some {
			m = append(m, p.encode()...)
		}
		return m
	}
	if err := read(encoded(all)); err != nil {
		t.Fatalf("the message as it was: %v", err)
	}
	for i, p := range all {
		before, after := encoded(all[:i]), encoded(all[i+1:])
		for what, b := range map[string][]byte{p.name: p.data, "signature": p.sign} {
			failed := 0
			flips(b, most, func([]byte) {
				if err := read(slices.Concat(before, p.encode(), after)); !errors.Is(err, code(p.name)) && failed < 3 {
					t.Errorf("a bit of the %s of part %d: %v, want %v", what, i, err, code(p.name))
					failed++
				}
			})
		}
	}
}

// byEntity are the codes of a changed message of an entity without master token.
func byEntity(name string) msl.Code {
	switch name {
	case "headerdata":
		return msl.ErrMessageEntityDataBasedVerificationFailed
	case "errordata":
		return msl.ErrMessageVerificationFailed
	}
	return msl.ErrPayloadVerificationFailed
}

func byMasterToken(name string) msl.Code {
	if name == "headerdata" {
		return msl.ErrMessageMasterTokenBasedVerificationFailed
	}
	return msl.ErrPayloadVerificationFailed
}

// proves reports whether a scheme detects changed messages, hidden or not.
func proves(name string) bool {
	for _, s := range []string{"PSK", "MGK", "RSA", "ECC", "X509"} {
		if strings.HasPrefix(strings.TrimPrefix(name, "MT_PROTECTED "), s) {
			return true
		}
	}
	return false
}

// TestFlippedSignedBits flips bits of what is signed, in the messages of every entity
// scheme that signs, and of their signatures.
func TestFlippedSignedBits(t *testing.T) {
	skipWithRace(t)
	m := newConforming(t)
	read := func(message []byte) error {
		_, err := m.server.Receive(context.Background(), bytes.NewReader(message))
		return err
	}
	seen := 0
	for name, entity := range m.entities {
		if !proves(name) {
			continue
		}
		seen++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			most := exhaustive()
			if entity.Scheme() == "MT_PROTECTED" {
				most = 0 // its protection is that of what it hides
			}
			local := must(entity.Credentials(context.Background()))
			who := byScheme(entity.Scheme(), nil)
			who["entityauthdata"].(object)["authdata"] = json.RawMessage(local.AuthData)
			flipParts(t, []protectedPart{
				protect(t, local.Protector, who, "headerdata", one()),
				protect(t, local.Protector, nil, "payload", with(hello, object{"endofmsg": nil})),
				protect(t, local.Protector, nil, "payload", with(hello, object{"sequencenumber": 2})),
			}, most, byEntity, read)
			flipParts(t, []protectedPart{protect(t, local.Protector, who, "errordata", object{"messageid": 1, "errorcode": 1})}, most, byEntity, read)
		})
	}
	if seen != 14 {
		t.Errorf("%d schemes", seen)
	}
}

// TestFlippedSessionBits flips the bits of messages under a master token: a small
// one, and some bits of a large one.
func TestFlippedSessionBits(t *testing.T) {
	skipWithRace(t)
	r := newRecorded(t)
	read := func(message []byte) error {
		_, err := r.received(t, message)
		return err
	}
	large := []any{with(hello, object{"endofmsg": nil, "data": random(16 << 10)}), with(hello, object{"sequencenumber": 2, "data": random(8 << 10)})}
	flipParts(t, parts(t, fromToken(object{"useridtoken": userToken(nil), "servicetokens": []any{serviceToken(nil)}})), exhaustive(), byMasterToken, read)
	flipParts(t, parts(t, sessionRaw.message(byToken(nil), one(), large...)), exhaustive(), byMasterToken, read)
}

// TestFlippedAnswerBits flips the bits of the answers that a client gets: one that
// delivers keys, one under the master token, and an error.
func TestFlippedAnswerBits(t *testing.T) {
	skipWithRace(t)
	n := softNetwork(t)
	client := n.pskClient("device")
	var request, answer []byte
	client.Transport = transportFunc(func(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
		var out bytes.Buffer
		if err := write(&out); err != nil {
			return nil, err
		}
		request = out.Bytes()
		stream, err := n.RoundTrip(ctx, func(w io.Writer) error { _, err := w.Write(request); return err })
		if err == nil {
			answer, err = io.ReadAll(stream)
		}
		return io.NopCloser(bytes.NewReader(answer)), err
	})
	read := func(c *msl.Client, sent int64) func([]byte) error {
		return func(message []byte) error {
			r, err := c.Answer(context.Background(), secret(""), sent, io.NopCloser(bytes.NewReader(message)))
			if err != nil {
				var peer *msl.PeerError
				if errors.As(err, &peer) && peer.Code == msl.ErrMessageReplayed {
					return nil // read as it was sent
				}
				return err
			}
			_, err = io.Copy(io.Discard, r.Body)
			return errors.Join(err, r.Body.Close())
		}
	}
	first := mustSend(t, client, secret("one"), 2)
	fresh := n.client(client.Local, client.KeyExchanges...)
	flipParts(t, parts(t, answer), exhaustive(), byEntity, read(fresh, first.MessageID-1))
	if h := fresh.Held(); h.MasterToken == nil {
		t.Error("the answer as it was delivers no token")
	}
	second := mustSend(t, client, secret("two"), 2)
	flipParts(t, parts(t, answer), exhaustive(), byMasterToken, read(client, second.MessageID-1))
	n.handler = func(context.Context, *msl.ResponseWriter, *msl.Message) error { return msl.ErrMessageReplayed }
	if _, _, err := send(t, client, secret("three")); err == nil {
		t.Fatal("no error")
	}
	var e answerError
	if err := json.Unmarshal(parts(t, answer)[0].data, &e); err != nil {
		t.Fatal(err)
	}
	flipParts(t, parts(t, answer), exhaustive(), byEntity, read(client, *e.MessageID-1))
}

// flipToken flips the bits of a token's data and signature.
func flipToken(token object, do func(what string, changed object)) {
	data, signature := token["tokendata"].([]byte), token["signature"].([]byte)
	flips(bytes.Clone(data), tokenBits, func(b []byte) { do("tokendata", object{"tokendata": b, "signature": signature}) })
	flips(bytes.Clone(signature), tokenBits, func(b []byte) { do("signature", object{"tokendata": data, "signature": b}) })
}

// TestFlippedTokenBits flips the bits of tokens in messages that are signed again,
// as the holder of the session keys can do it.
func TestFlippedTokenBits(t *testing.T) {
	skipWithRace(t)
	r := newRecorded(t)
	group := func(err error) int {
		var e *msl.Error
		if !errors.As(err, &e) {
			return -1
		}
		return int(e.Code) / 1000
	}
	for _, c := range []struct {
		name    string
		token   object
		group   int
		forged  msl.Code
		message func(changed object) []byte
	}{
		{"master token", masterToken(nil), 1, msl.ErrMasterTokenUntrusted, func(o object) []byte {
			return sessionRaw.message(object{"mastertoken": o}, one(), hello)
		}},
		{"user id token", userToken(nil), 2, msl.ErrUserIDTokenNotDecrypted, func(o object) []byte {
			return fromToken(object{"useridtoken": o})
		}},
	} {
		if _, err := r.received(t, c.message(c.token)); err != nil {
			t.Fatalf("%s as it was: %v", c.name, err)
		}
		flipToken(c.token, func(what string, changed object) {
			_, err := r.received(t, c.message(changed))
			if what == "signature" && !errors.Is(err, c.forged) || group(err) != c.group {
				t.Errorf("%s: a bit of the %s: %v", c.name, what, err)
			}
		})
	}
}

// A changed service token is not opened: its data is not returned, and a changed name or
// binding cannot replace another token unnoticed.
func TestFlippedServiceTokenBits(t *testing.T) {
	skipWithRace(t)
	keys := msl.ServiceTokenKeys{"": symmetric(t, newStore(t), serviceKeys)}
	for _, encrypted := range []bool{false, true} {
		data := []byte("service data")
		if encrypted {
			data = serviceKeys.encrypt(data)
		}
		token := serviceToken(object{"encrypted": encrypted, "servicedata": data})
		if got, err := msl.ParseServiceToken(encode(token), keys, nil, nil); err != nil || !got.Opened || string(got.Data) != "service data" {
			t.Fatalf("the token as it was: %+v, %v", got, err)
		}
		flipToken(token, func(what string, changed object) {
			got, err := msl.ParseServiceToken(encode(changed), keys, nil, nil)
			if err == nil && (got.Opened || got.Data != nil) {
				t.Errorf("a bit of the %s: %+v", what, got)
			}
			if what == "signature" && err != nil {
				t.Errorf("a bit of the signature: %v", err)
			}
		})
	}
}
