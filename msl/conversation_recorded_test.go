package msl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestConversationsServed lets a Server answer every recorded request, and
// opens the answers with the recorded keys and the standard library.
func TestConversationsServed(t *testing.T) {
	skipWithRace(t)
	answers, refused := 0, 0
	for _, c := range readConversations(t) {
		r := newRecorded(t).withStubs()
		for i, e := range c.exchanges {
			want, ladder := e.Resp, strings.Contains(c.label, "LADDER_PSK")
			if want.ErrorData != nil && ladder || e.Req.HeaderData != nil && e.Req.HeaderData.UserAuthData != nil && e.Req.HeaderData.UserAuthData.Scheme == "USER_ID_TOKEN" {
				continue // the error of a scheme that is not there, and a user scheme that is not
			}
			t.Run(fmt.Sprintf("%s/%d", c.label, i+1), func(t *testing.T) {
				if want.ErrorData != nil {
					r.setClock(time.Unix(want.ErrorData.Timestamp, 0))
					r.checkRefused(t, c.request(t, i), e.Req, want)
					refused++
					return
				}
				r.setClock(time.Unix(want.HeaderData.Timestamp, 0))
				r.checkServed(t, c.request(t, i), e.Req, want)
				answers++
			})
		}
	}
	if answers < 70 || refused < 8 {
		t.Errorf("%d answers, %d refusals", answers, refused)
	}
}

func (r *recorded) answer(request []byte) ([]byte, error) {
	var out bytes.Buffer
	err := r.server.Serve(context.Background(), "test", bytes.NewReader(request), &out, recordedApplication)
	return out.Bytes(), err
}

func (r *recorded) checkRefused(t *testing.T, request []byte, req, want recordedMessage) {
	t.Helper()
	wire, err := r.answer(request)
	got := r.refusal(t, exchanged{served: err, wire: wire})
	code := want.ErrorData.InternalCode
	if req.EntityAuthData != nil && unconfigured(req.EntityAuthData.Scheme) {
		code = 104001
	}
	if got.InternalCode != code {
		t.Errorf("answer %+v, want %+v", got, want.ErrorData)
	}
	if code == want.ErrorData.InternalCode && got.ErrorCode != want.ErrorData.ErrorCode {
		t.Errorf("response code %d", got.ErrorCode)
	}
	if req.HeaderData != nil && code == want.ErrorData.InternalCode && *got.MessageID != req.HeaderData.MessageID+1 {
		t.Errorf("answer to %d has id %d", req.HeaderData.MessageID, *got.MessageID)
	}
}

func (r *recorded) checkServed(t *testing.T, request []byte, req, want recordedMessage) {
	t.Helper()
	wire, err := r.answer(request)
	if err != nil {
		t.Fatal(err)
	}
	var session *rawKeys
	if req.MasterToken != nil {
		keys := req.MasterToken.raw()
		session = &keys
	}
	got, err := readAnswer(wire, r.public(), session, func(h answerHeader) (*rawKeys, error) {
		if h.KeyResponseData == nil {
			return session, nil
		}
		return newKeys(t, h)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.err != nil {
		t.Fatalf("answer %+v", got.err)
	}
	r.checkAnswerHeader(t, request, req, want, got)
	r.checkTokens(t, req, want, got)
	r.checkPayload(t, req, got)
}

func (r *recorded) checkAnswerHeader(t *testing.T, request []byte, req, want recordedMessage, got answer) {
	t.Helper()
	h := got.header
	if h.MessageID == nil || *h.MessageID != req.HeaderData.MessageID+1 || *h.MessageID != want.HeaderData.MessageID {
		t.Errorf("message id %v", h.MessageID)
	}
	if h.Timestamp == nil || *h.Timestamp != r.clock().Unix() || h.Renewable == nil || *h.Renewable ||
		h.Handshake == nil || *h.Handshake || h.NonReplayable == nil || *h.NonReplayable || h.NonReplayableID != nil {
		t.Errorf("header %+v", h)
	}
	if (got.outer.MasterToken != nil) != (want.MasterToken != nil) || (got.outer.EntityAuthData != nil) == (want.MasterToken != nil) {
		t.Error("answered under another kind of sender")
	}
	if got.outer.MasterToken != nil {
		var sent wireHeader
		if err := json.NewDecoder(bytes.NewReader(request)).Decode(&sent); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(sent.MasterToken, got.outer.MasterToken) || h.Sender != "server1" {
			t.Errorf("sender %q, token %s", h.Sender, got.outer.MasterToken)
		}
	}
	if (h.KeyResponseData != nil) != (want.HeaderData.KeyResponseData != nil) {
		t.Errorf("key response %+v, want %+v", h.KeyResponseData, want.HeaderData.KeyResponseData)
	}
	var both struct{ CompressionAlgos, Languages, EncoderFormats []string }
	if err := json.Unmarshal(h.Capabilities, &both); err != nil {
		t.Fatal(err)
	}
	slices.Sort(both.CompressionAlgos) // in the request's order, which is that of a set
	if fmt.Sprint(both) != "{[GZIP LZW] [en-US] [JSON]}" {
		t.Errorf("capabilities %v", both)
	}
}

// openToken opens a token of the issuer by hand.
func openToken(token json.RawMessage, inner string) (members, inside map[string]any, err error) {
	var outer struct{ TokenData, Signature []byte }
	if err := json.Unmarshal(token, &outer); err != nil {
		return nil, nil, err
	}
	if err := issuerKeys.verify(outer.TokenData, outer.Signature); err != nil {
		return nil, nil, err
	}
	var sealed map[string][]byte
	members = map[string]any{}
	if err := json.Unmarshal(outer.TokenData, &members); err != nil {
		return nil, nil, err
	}
	sealed = map[string][]byte{}
	if err := json.Unmarshal(encode(object{inner: members[inner]}), &sealed); err != nil {
		return nil, nil, err
	}
	plain, err := issuerKeys.decrypt(sealed[inner])
	if err != nil {
		return nil, nil, err
	}
	return members, inside, json.Unmarshal(plain, &inside)
}

func (r *recorded) checkTokens(t *testing.T, req, want recordedMessage, got answer) {
	t.Helper()
	serial := any(nil)
	if req.MasterToken != nil {
		serial = float64(req.MasterToken.SerialNumber)
	}
	if k := got.header.KeyResponseData; k != nil {
		members, inside, err := openToken(k.MasterToken, "sessiondata")
		if err != nil {
			t.Fatal(err)
		}
		if serial != nil && members["serialnumber"] != serial {
			t.Errorf("renewed token has serial number %v, want %v", members["serialnumber"], serial)
		}
		serial = members["serialnumber"]
		if seq := want.HeaderData.KeyResponseData.MasterToken; members["sequencenumber"] != float64(seq.SequenceNumber) || inside["identity"] != seq.SessionData.Identity || inside["encryptionkey"] != nil {
			t.Errorf("new master token %v with %v", members, inside)
		}
	}
	if (got.header.UserIDToken != nil) != (want.HeaderData.UserIDToken != nil) {
		t.Fatalf("user id token %s, want %+v", got.header.UserIDToken, want.HeaderData.UserIDToken)
	}
	if got.header.UserIDToken != nil {
		members, inside, err := openToken(got.header.UserIDToken, "userdata")
		if err != nil {
			t.Fatal(err)
		}
		if inside["identity"] != want.HeaderData.UserIDToken.UserData.Identity || members["mtserialnumber"] != serial {
			t.Errorf("user id token %v of %v", members, inside)
		}
	}
	checkServiceTokens(t, want, got, serial)
}

func checkServiceTokens(t *testing.T, want recordedMessage, got answer, serial any) {
	t.Helper()
	var names, wanted []string
	for _, token := range got.header.ServiceTokens {
		var outer struct{ TokenData, Signature []byte }
		var inner struct {
			Name           string
			Encrypted      bool
			MTSerialNumber any
			ServiceData    []byte
		}
		err := errors.Join(json.Unmarshal(token, &outer), json.Unmarshal(outer.TokenData, &inner), serviceKeys.verify(outer.TokenData, outer.Signature))
		if err != nil || !inner.Encrypted || inner.MTSerialNumber != serial {
			t.Errorf("service token %s: %v", outer.TokenData, err)
			continue
		}
		data, err := serviceKeys.decrypt(inner.ServiceData)
		if err != nil {
			t.Error(err)
		}
		names = append(names, inner.Name+"="+string(data))
	}
	for _, s := range want.HeaderData.ServiceTokens {
		wanted = append(wanted, s.Name+"="+s.ServiceData)
	}
	slices.Sort(names)
	slices.Sort(wanted)
	if !slices.Equal(names, wanted) {
		t.Errorf("service tokens %q, want %q", names, wanted)
	}
}

func (r *recorded) checkPayload(t *testing.T, req recordedMessage, got answer) {
	t.Helper()
	if req.HeaderData.Handshake {
		if len(got.chunks) > 0 {
			t.Error("chunks in the answer to a handshake")
		}
		return
	}
	var data []byte
	for i, chunk := range got.chunks {
		if chunk.EndOfMsg != (i == len(got.chunks)-1) {
			t.Errorf("chunk %d: end %v", i, chunk.EndOfMsg)
		}
		data = append(data, inflate(t, chunk)...)
	}
	if string(data) != req.payload() || len(got.chunks) == 0 || len(data) == 0 {
		t.Errorf("payload %q", data)
	}
}

// TestConversationsWithoutStubs meets the schemes that are not there as a server
// does: with their error, and before anything but the user is looked at.
func TestConversationsWithoutStubs(t *testing.T) {
	skipWithRace(t)
	codes := map[string]msl.Code{
		"DIFFIE_HELLMAN": msl.ErrKeyXFactoryNotFound, "JWE_LADDER": msl.ErrKeyXFactoryNotFound, "JWK_LADDER": msl.ErrKeyXFactoryNotFound,
		"JWE_RSA": msl.ErrUnsupportedKeyXMechanism, "JWEJS_RSA": msl.ErrUnsupportedKeyXMechanism,
		"JWK_RSA": msl.ErrUnsupportedKeyXMechanism, "JWK_RSAES": msl.ErrUnsupportedKeyXMechanism,
	}
	served, refused := 0, 0
	for _, c := range readConversations(t) {
		r := newRecorded(t)
		for i, e := range c.exchanges {
			h := e.Req.HeaderData
			if h == nil || e.Req.EntityAuthData != nil && unconfigured(e.Req.EntityAuthData.Scheme) || h.UserAuthData != nil && h.UserAuthData.Scheme == "USER_ID_TOKEN" {
				continue
			}
			if len(h.KeyRequestData) > 0 {
				k := h.KeyRequestData[0]
				code, ok := codes[k.Scheme]
				if k.Scheme == "ASYMMETRIC_WRAPPED" {
					code, ok = codes[k.KeyData.Mechanism]
				}
				if c.label == "err-bad-password" { // the user comes before the key requests
					code = msl.ErrEmailPasswordIncorrect
				}
				if ok {
					r.mustRefuse(t, c.request(t, i), code, h.MessageID)
					refused++
					continue
				}
			}
			t.Run(fmt.Sprintf("%s/%d", c.label, i+1), func(t *testing.T) {
				served++
				if e.Resp.ErrorData != nil {
					r.setClock(time.Unix(e.Resp.ErrorData.Timestamp, 0))
					r.checkRefused(t, c.request(t, i), e.Req, e.Resp)
					return
				}
				r.setClock(time.Unix(e.Resp.HeaderData.Timestamp, 0))
				r.checkServed(t, c.request(t, i), e.Req, e.Resp)
			})
		}
	}
	if served < 35 || refused < 50 {
		t.Errorf("%d served, %d refused", served, refused)
	}
}
