package msl_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// mslWrapping is the wrapping key of the recorded issuer.
var mslWrapping = unhex("83b69a1580d323a2e79dd9b22626b3f6")

func recordedGroup() keyx.DHGroup {
	p, _ := new(big.Int).SetString("c2048e076b268761db1427ba3ad98473d32b0abdee98c0827923426f294eda3392bf0032a1d8092055b58baa07586a7d3e271c39a8c891f5ceea4debdfa6b023", 16)
	return keyx.DHGroup{ID: "dh_default1", P: p, G: big.NewInt(2)}
}

var joseMechanisms = []keyx.JOSEMechanism{keyx.JWERSA, keyx.JWEJSRSA, keyx.JWKRSA, keyx.JWKRSAES}

// withEveryExchange is a recorded server that issues what the reference stacks
// read.
func (r *recorded) withEveryExchange() *recorded {
	r.t.Helper()
	psk := r.server.KeyExchanges[0].(*keyx.SymmetricResponder).PSK
	for _, m := range joseMechanisms {
		r.server.KeyExchanges = append(r.server.KeyExchanges, &keyx.AsymmetricJOSE{Mechanism: m, Store: r.store})
	}
	r.server.KeyExchanges = append(r.server.KeyExchanges, &keyx.DiffieHellman{Store: r.store, Groups: []keyx.DHGroup{recordedGroup()}, AllowSmallGroups: true})
	wrapping := provisionRaw(r.t, r.store, "msl-wrapping", keystore.AESWrap128, mslWrapping).(keystore.DataWrapper)
	revealing := provisionRaw(r.t, r.store, "msl-revealing", keystore.AESReveal128, mslWrapping).(keystore.Revealer)
	for _, form := range []keyx.LadderForm{keyx.JWELadder, keyx.JWKLadder} {
		r.server.KeyExchanges = append(r.server.KeyExchanges, &keyx.LadderResponder{Form: form, Store: r.store, PSK: psk, Wrapping: wrapping, Revealing: revealing})
	}
	r.server.Custody = msl.CustodyShared
	return r
}

// A recordedRequester has the requester's side of a conversation.
type recordedRequester struct {
	secrets map[string][]byte // private values of Diffie-Hellman, by public value
	dh      *keyx.DiffieHellman
	all     []msl.Offerer
}

func newRecordedRequester(t testing.TB, label string) *recordedRequester {
	t.Helper()
	store := newStore(t)
	q := &recordedRequester{secrets: map[string][]byte{}}
	f, err := os.Open(filepath.Join(vectors, "conversations", label+".secrets"))
	if err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var s struct{ Y, X string } // in hexadecimal, maybe of an odd number of digits
			if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
				t.Fatal(err)
			}
			y, _ := new(big.Int).SetString(s.Y, 16)
			x, _ := new(big.Int).SetString(s.X, 16)
			q.secrets[string(y.Bytes())] = x.Bytes()
		}
	}
	known := clientKeys(t)
	pair := provisionPair(t, store, "awe", keystore.RSADecrypt2048, keyPair(t, "awe_rsa2048")).(keyx.DecryptingPair)
	own := provisionRaw(t, store, "psk", keystore.AESReveal128, pskClient1.wrappingKey()).(keystore.Revealer)
	q.all = []msl.Offerer{known["SYMMETRIC_WRAPPED"], known["ASYMMETRIC_WRAPPED"]}
	for _, m := range joseMechanisms {
		q.all = append(q.all, &keyx.AsymmetricJOSE{Mechanism: m, Store: store, KeyPair: pair, ID: "awe_rsa2048"})
	}
	for _, form := range []keyx.LadderForm{keyx.JWELadder, keyx.JWKLadder} {
		x := &keyx.LadderOfferer{Form: form, Store: store, Own: own}
		t.Cleanup(func() { x.Close() })
		q.all = append(q.all, x)
	}
	q.dh = &keyx.DiffieHellman{Store: store, Groups: []keyx.DHGroup{recordedGroup()}, AllowSmallGroups: true}
	q.all = append(q.all, q.dh)
	return q
}

// use makes the requester draw what it drew for a recorded request.
func (q *recordedRequester) use(t testing.TB, req json.RawMessage) {
	t.Helper()
	q.dh.Rand = nil
	var r struct {
		HeaderData struct {
			KeyRequestData []struct{ KeyData struct{ PublicKey []byte } }
		}
	}
	if err := json.Unmarshal(req, &r); err != nil {
		t.Fatal(err)
	}
	for _, k := range r.HeaderData.KeyRequestData {
		if x := q.secrets[string(bytes.TrimLeft(k.KeyData.PublicKey, "\x00"))]; x != nil {
			q.dh.Rand = bytes.NewReader(append(make([]byte, 64-len(x)), x...))
		}
	}
}

// accept ends the exchange that key response data answers.
func (q *recordedRequester) accept(t testing.TB, identity, scheme string, keydata []byte) (*msl.SessionKeys, error) {
	t.Helper()
	ctx, failed := context.Background(), errors.New("no exchange of that scheme")
	for _, x := range q.all {
		if x.Scheme() != scheme {
			continue
		}
		offer, err := x.Offer(ctx, msl.Requester{Identity: identity})
		if err != nil {
			t.Fatal(err)
		}
		outcome, err := offer.Accept(ctx, keydata)
		if err == nil {
			offer.Close()
			return outcome.Keys, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

// A rawExchange is one exchange of a conversation, with what the other decoder
// leaves out.
type rawExchange struct {
	Req  json.RawMessage
	Resp struct {
		HeaderData struct {
			KeyResponseData struct {
				Scheme  string
				KeyData json.RawMessage
			}
		}
	}
}

// rawExchanges are the requests of a conversation as the decoder wrote them.
func rawExchanges(t testing.TB, label string) (all []rawExchange) {
	t.Helper()
	readVectors(t, "conversations/"+label+".decoded.json", &all)
	return all
}

// readable reports whether a recorded message belongs to this test.
func readable(m recordedMessage) bool {
	h := m.HeaderData
	return (h == nil || h.UserAuthData == nil || h.UserAuthData.Scheme != "USER_ID_TOKEN") && (m.EntityAuthData == nil || !unconfigured(m.EntityAuthData.Scheme))
}

// TestExchangesServed lets a server with every key exchange answer the recorded
// requests in the form of the reference stack, and ends the exchanges with the
// recorded requester's keys.
func TestExchangesServed(t *testing.T) {
	skipWithRace(t)
	ended := map[string]int{}
	for _, c := range readConversations(t) {
		r, raw := newRecorded(t).withEveryExchange(), rawExchanges(t, c.label)
		for i, e := range c.exchanges {
			if !readable(e.Req) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", c.label, i+1), func(t *testing.T) {
				if e.Resp.ErrorData != nil {
					r.setClock(time.Unix(e.Resp.ErrorData.Timestamp, 0))
					r.checkRefused(t, c.request(t, i), e.Req, e.Resp)
					return
				}
				r.setClock(time.Unix(e.Resp.HeaderData.Timestamp, 0))
				if scheme := r.checkShared(t, c, raw, i); scheme != "" {
					ended[scheme]++
				}
			})
		}
	}
	for _, scheme := range []string{"ASYMMETRIC_WRAPPED", "SYMMETRIC_WRAPPED", "DIFFIE_HELLMAN", "JWE_LADDER", "JWK_LADDER"} {
		if ended[scheme] == 0 {
			t.Errorf("no exchange of %s: %v", scheme, ended)
		}
	}
}

// checkShared serves one request. The new session keys are in the token, as its
// form says, and the exchange has to give the same.
func (r *recorded) checkShared(t *testing.T, c conversation, raw []rawExchange, i int) string {
	t.Helper()
	request, req, want := c.request(t, i), c.exchanges[i].Req, c.exchanges[i].Resp
	wire, err := r.answer(request)
	if err != nil {
		t.Fatal(err)
	}
	var session, fresh *rawKeys
	if req.MasterToken != nil {
		keys := req.MasterToken.raw()
		session = &keys
	}
	scheme := ""
	got, err := readAnswer(wire, r.public(), session, func(h answerHeader) (*rawKeys, error) {
		if h.KeyResponseData == nil {
			return session, nil
		}
		scheme = h.KeyResponseData.Scheme
		keys, err := sharedToken(h.KeyResponseData.MasterToken)
		fresh = keys
		return keys, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.err != nil {
		t.Fatalf("answer %+v", got.err)
	}
	r.checkAnswerHeader(t, request, req, want, got)
	r.checkPayload(t, req, got)
	if fresh == nil {
		return ""
	}
	if scheme != want.HeaderData.KeyResponseData.Scheme {
		t.Errorf("exchange %s, want %s", scheme, want.HeaderData.KeyResponseData.Scheme)
	}
	inside := got.outer.HeaderData
	if session != nil {
		if inside, err = session.decrypt(inside); err != nil {
			t.Fatal(err)
		}
	}
	var h struct {
		KeyResponseData struct{ KeyData json.RawMessage }
	}
	if err := json.Unmarshal(inside, &h); err != nil {
		t.Fatal(err)
	}
	checkAgrees(t, c.label, raw[:i+1], scheme, h.KeyResponseData.KeyData, *fresh)
	return scheme
}

// checkAgrees ends an exchange with this package's answer to it. The requester is given
// the earlier recorded answers first, since each step of a ladder builds on the last.
func checkAgrees(t *testing.T, label string, raw []rawExchange, scheme string, keydata []byte, fresh rawKeys) {
	t.Helper()
	q, last := newRecordedRequester(t, label), len(raw)-1
	for _, e := range raw[:last] {
		if k := e.Resp.HeaderData.KeyResponseData; k.Scheme != "" {
			q.use(t, e.Req)
			if _, err := q.accept(t, fresh.id, k.Scheme, k.KeyData); err != nil {
				t.Fatal(err)
			}
		}
	}
	q.use(t, raw[last].Req)
	keys, err := q.accept(t, fresh.id, scheme, keydata)
	if err != nil {
		t.Fatal(err)
	}
	checkSessionKeys(t, keys, fresh.encryption, fresh.mac)
	keys.Release()
}

// sharedToken opens a master token as the reference stack does.
func sharedToken(token json.RawMessage) (*rawKeys, error) {
	_, inside, err := openToken(token, "sessiondata")
	if err != nil {
		return nil, err
	}
	var d struct {
		Identity, EncryptionAlgorithm, SignatureAlgorithm string
		EncryptionKey, HMACKey, SignatureKey              []byte
		Sealed                                            *int
	}
	if err := json.Unmarshal(encode(inside), &d); err != nil {
		return nil, err
	}
	if d.EncryptionAlgorithm != "AES" || d.SignatureAlgorithm != "HmacSHA256" || len(d.EncryptionKey) != 16 ||
		len(d.SignatureKey) != 32 || !bytes.Equal(d.SignatureKey, d.HMACKey) || d.Sealed != nil || d.Identity == "" {
		return nil, fmt.Errorf("sessiondata of another form: %v", inside)
	}
	return &rawKeys{d.Identity, d.EncryptionKey, d.SignatureKey}, nil
}

// TestExchangesRead lets a client with every key exchange read the recorded
// answers, in their order: a ladder climbs.
func TestExchangesRead(t *testing.T) {
	skipWithRace(t)
	ended := map[string]int{}
	for _, c := range readConversations(t) {
		q, raw := newRecordedRequester(t, c.label), rawExchanges(t, c.label)
		for i, e := range c.exchanges {
			if e.Req.HeaderData == nil || e.Resp.ErrorData != nil || e.Resp.HeaderData.KeyResponseData == nil {
				continue
			}
			if (e.Req.EntityAuthData != nil && unconfigured(e.Req.EntityAuthData.Scheme)) || !readable(e.Req) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", c.label, i+1), func(t *testing.T) {
				client := recordedClient(t, c.label)
				client.KeyExchanges, client.Custody = q.all, msl.CustodyImported
				q.use(t, raw[i].Req)
				if e.Req.MasterToken != nil {
					hold(t, client, c.request(t, i), e.Req)
				}
				user := ""
				if e.Req.HeaderData.UserIDToken != nil || e.Req.HeaderData.UserAuthData != nil {
					user = "user1"
				}
				body := &closeCounter{Reader: bytes.NewReader(c.response(t, i))}
				answer, err := client.Answer(context.Background(), &msl.Request{User: user, Recipient: "server1"}, e.Req.HeaderData.MessageID, body)
				if err != nil {
					t.Fatal(err)
				}
				checkRead(t, client, user, answer, e.Req, e.Resp)
				answer.Body.Close()
				k := e.Req.HeaderData.KeyRequestData[0]
				ended[k.Scheme+" "+k.KeyData.Mechanism+k.KeyData.KeyID]++
			})
		}
	}
	for _, x := range []string{"ASYMMETRIC_WRAPPED RSA", "ASYMMETRIC_WRAPPED JWE_RSA", "ASYMMETRIC_WRAPPED JWEJS_RSA", "ASYMMETRIC_WRAPPED JWK_RSA",
		"ASYMMETRIC_WRAPPED JWK_RSAES", "SYMMETRIC_WRAPPED PSK", "DIFFIE_HELLMAN ", "JWE_LADDER PSK", "JWK_LADDER PSK", "JWK_LADDER WRAP"} {
		if ended[x] == 0 {
			t.Errorf("no recorded answer of %s: %v", x, ended)
		}
	}
}
