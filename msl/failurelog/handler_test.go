package failurelog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// good is a report.
func good(t testing.TB) []byte {
	t.Helper()
	now := time.Now()
	b, err := json.Marshal(Report{Format: 1, Version: "v1.2.3", Lost: 4, Failures: []Failure{{
		Incident: Incident{Kind: Device, Provider: PKCS11, Operation: "C_Sign", Result: "CKR_DEVICE_ERROR", Cause: "unavailable", Code: msl.ErrInternalException, KeyVersion: 3},
		Count:    2, First: now.Add(-time.Minute), Last: now,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHandlerTakesReport(t *testing.T) {
	h, path := newHandler(t)
	answer := post(h, message(t, from("camera-1"), nil, good(t))).Body.Bytes()
	if code := answerCode(t, answer); code != -1 {
		t.Fatalf("got %v", code)
	}
	got := records(t, path)
	if len(got) != 1 {
		t.Fatalf("%d records", len(got))
	}
	r := got[0]
	if r.Entity != "camera-1" || r.Proven || r.Result != "CKR_DEVICE_ERROR" || r.Count != 2 || r.Lost != 4 || r.KeyVersion != 3 {
		t.Errorf("got %+v", r)
	}
	text := string(layers(answer))
	for _, want := range []string{`"scheme":"NONE"`, `"signature":""`, `"endofmsg":true`, `"messageid":8`, `"renewable":false`, `"nonreplayable":false`} {
		if !strings.Contains(text, want) {
			t.Errorf("the answer lacks %s: %s", want, text)
		}
	}
	for _, never := range []string{"token", "keyrequestdata", "keyresponsedata", "user"} {
		if strings.Contains(text, never) {
			t.Errorf("the answer has %s: %s", never, text)
		}
	}
}

// TestHandlerRefuses sends everything that is not a report.
func TestHandlerRefuses(t *testing.T) {
	master := object{"tokendata": []byte(`{"renewalwindow":1700000000,"expiration":1900000000,"sequencenumber":1,"serialnumber":1,"sessiondata":"AAAA"}`), "signature": "AAAA"}
	user := object{"tokendata": []byte(`{"renewalwindow":1700000000,"expiration":1900000000,"mtserialnumber":1,"serialnumber":1,"userdata":"AAAA"}`), "signature": "AAAA"}
	service := object{"tokendata": []byte(`{"name":"n","encrypted":false,"servicedata":"AAAA"}`), "signature": ""}
	entity := func(scheme string, authdata object) object {
		return object{"entityauthdata": object{"scheme": scheme, "authdata": authdata}}
	}
	for name, c := range map[string]struct {
		outside, header object
		data            []byte
		want            msl.Code
	}{
		"pre-shared keys":       {entity("PSK", object{"identity": "x"}), nil, good(t), msl.ErrEntityAuthFactoryNotFound},
		"unknown scheme":        {entity("MAGIC", object{}), nil, good(t), msl.ErrUnidentifiedEntityAuthScheme},
		"master token":          {object{"mastertoken": master}, nil, good(t), msl.ErrMasterTokenUntrusted},
		"user proof":            {from("x"), object{"userauthdata": object{"scheme": "EMAIL_PASSWORD", "authdata": object{}}}, good(t), msl.ErrUnencryptedMessageWithUserAuthData},
		"user token":            {from("x"), object{"useridtoken": user}, good(t), msl.ErrUserIDTokenNotDecrypted},
		"service token":         {from("x"), object{"servicetokens": []object{service}}, good(t), msl.ErrServiceTokenMasterTokenNotFound},
		"key request":           {from("x"), object{"renewable": true, "keyrequestdata": []object{{"scheme": "ASYMMETRIC_WRAPPED", "keydata": object{}}}}, good(t), msl.ErrKeyXFactoryNotFound},
		"key response":          {from("x"), object{"keyresponsedata": object{"mastertoken": master, "scheme": "ASYMMETRIC_WRAPPED", "keydata": object{}}}, good(t), msl.ErrKeyXFactoryNotFound},
		"handshake":             {from("x"), object{"handshake": true, "renewable": true}, good(t), msl.ErrHandshakeDataMissing},
		"non-replayable":        {from("x"), object{"nonreplayable": true, "nonreplayableid": 1}, good(t), msl.ErrIncompleteNonReplayableMessage},
		"no data":               {from("x"), nil, []byte{}, msl.ErrPayloadDataCorrupt},
		"other data":            {from("x"), nil, []byte("hello"), msl.ErrPayloadDataCorrupt},
		"long data":             {from("x"), nil, bytes.Repeat([]byte(" "), maxReport+1), msl.ErrPayloadDataCorrupt},
		"no name":               {from(""), nil, good(t), msl.ErrIncorrectEntityAuthData},
		"long name":             {from(strings.Repeat("x", maxIdentity+1)), nil, good(t), msl.ErrIncorrectEntityAuthData},
		"long name in two":      {entity("NONE_SUFFIXED", object{"root": "x", "suffix": strings.Repeat("y", maxIdentity)}), nil, good(t), msl.ErrIncorrectEntityAuthData},
		"not allowed":           {from("stranger"), nil, good(t), msl.ErrIncorrectEntityAuthData},
		"not allowed in two":    {entity("NONE_SUFFIXED", object{"root": "stranger", "suffix": "x"}), nil, good(t), msl.ErrIncorrectEntityAuthData},
		"allowing goes wrong":   {from("trouble"), nil, good(t), msl.ErrInternalException},
		"allowed":               {from("x"), nil, good(t), -1},
		"allowed in two":        {entity("NONE_SUFFIXED", object{"root": "x", "suffix": "y"}), nil, good(t), -1},
		"renewable without way": {from("x"), object{"renewable": true}, good(t), -1},
	} {
		t.Run(name, func(t *testing.T) {
			h, path := newHandler(t)
			h.Allow = func(_ context.Context, identity string) (bool, error) {
				if identity == "trouble" {
					return false, errors.New("no answer")
				}
				return identity != "stranger", nil
			}
			untouched(t, h)
			w := post(h, message(t, c.outside, c.header, c.data))
			if w.Code != http.StatusOK {
				t.Fatalf("HTTP status %d", w.Code)
			}
			if code := answerCode(t, w.Body.Bytes()); code != c.want {
				t.Errorf("got %v, want %v", code, c.want)
			}
			if n := len(records(t, path)); (n > 0) != (c.want == -1) {
				t.Errorf("%d records", n)
			}
		})
	}
}

// untouched gives the handler a store and a state that fail the test when they are
// used.
func untouched(t *testing.T, h *Handler) {
	h.once.Do(func() { h.inner = h.handler() })
	h.inner.Server.Issuer.Store = poison{t}
	h.inner.Server.State = poison{t}
}

// A poison is a key store, a state and a key exchange that must not be used.
type poison struct{ t *testing.T }

var errPoison = fmt.Errorf("hsm: C_Sign: CKR_DEVICE_REMOVED: %w", keystore.ErrUnavailable)

func (p poison) touched() error {
	p.t.Helper()
	p.t.Error("a store was touched")
	return errPoison
}

func (p poison) Generate(keystore.Algorithm) (keystore.Key, error) { return nil, p.touched() }
func (p poison) Lookup(string) ([]keystore.Version, error)         { return nil, p.touched() }
func (p poison) Seal(keystore.Key, []byte) ([]byte, error)         { return nil, p.touched() }
func (p poison) Close() error                                      { return p.touched() }
func (p poison) Unseal(keystore.Algorithm, []byte, []byte) (keystore.Key, error) {
	return nil, p.touched()
}
func (p poison) Revoked(context.Context, string, string) error              { return p.touched() }
func (p poison) AcceptID(context.Context, string, int64, int64) error       { return p.touched() }
func (p poison) Renewable(context.Context, string, int64, int64) error      { return p.touched() }
func (p poison) Renew(context.Context, string, int64, int64) (int64, error) { return 0, p.touched() }

// TestHandlerRefusesRealClients sends messages of clients that have keys and tokens.
func TestHandlerRefusesRealClients(t *testing.T) {
	store := soft.New()
	defer store.Close()
	for label, a := range map[string]keystore.Algorithm{
		"issuer-encryption": keystore.AES128CBC, "issuer-mac": keystore.HMACSHA256,
		"msl-seal-session": keystore.SealSession256, "msl-seal-wrapping": keystore.SealWrapping256, "msl-seal-mac": keystore.SealMAC256,
	} {
		if _, err := store.Create(label, a); err != nil {
			t.Fatal(err)
		}
	}
	h, path := newHandler(t)
	untouched(t, h)
	d := &direct{handler: h}
	anyone := []msl.EntityScheme{&entityauth.None{Anyone: true}}
	c := &msl.Client{
		Local: &entityauth.NoneEntity{Identity: "x"}, Peers: anyone, Transport: d,
		KeyExchanges: []msl.Offerer{&keyx.AsymmetricWrapped{Store: store}},
		UserAuth: func(context.Context, string, msl.ResponseCode) (*msl.UserAuthData, error) {
			return &msl.UserAuthData{Scheme: "EMAIL_PASSWORD", AuthData: []byte("{}")}, nil
		},
	}
	defer c.Close()
	for name, r := range map[string]msl.Request{
		"encrypted":      {Encrypted: true},
		"authenticated":  {Authenticated: true},
		"non-replayable": {NonReplayable: true},
		"tokens":         {RequestTokens: true},
		"a user":         {User: "ada@example.com"},
	} {
		r.Body = msl.BytesBody(good(t))
		_, err := c.Do(context.Background(), &r)
		var peer *msl.PeerError
		if !errors.As(err, &peer) || peer.Code != msl.ErrKeyXFactoryNotFound {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if n := len(records(t, path)); n > 0 {
		t.Errorf("%d records", n)
	}
}

func TestHandlerBounds(t *testing.T) {
	h, path := newHandler(t)
	if w := post(h, message(t, from("x"), object{"capabilities": object{"languages": []string{strings.Repeat("x", maxMessage)}}}, good(t))); w.Code == http.StatusOK && answerCode(t, w.Body.Bytes()) == -1 {
		t.Error("a message that is too long was taken")
	}
	w := post(h, []byte("{"))
	if w.Code == http.StatusOK && answerCode(t, w.Body.Bytes()) == -1 {
		t.Error("half a message was taken")
	}
	if n := len(records(t, path)); n > 0 {
		t.Errorf("%d records", n)
	}
}

// TestHandlerRates sends at once as much as is allowed in a second, and more.
func TestHandlerRates(t *testing.T) {
	h, path := newHandler(t)
	h.PerSource, h.PerSecond = 3, 5
	source := "a"
	h.Source = func(*http.Request) string { return source }
	taken := map[string]int{}
	one := message(t, from("x"), nil, good(t))
	start := time.Now()
	for _, source = range []string{"a", "b", "c"} {
		for range 20 {
			w := post(h, one)
			switch w.Code {
			case http.StatusOK:
				taken[source]++
			case http.StatusServiceUnavailable:
			default:
				t.Fatalf("HTTP status %d", w.Code)
			}
		}
	}
	extra := 1 + int(time.Since(start).Seconds()*5) // the limits grow during the test
	if taken["a"] < 3 || taken["a"] > 3+extra || taken["b"] < 1 || taken["b"] > 3+extra || len(records(t, path)) > 5+extra {
		t.Errorf("taken %v in %v", taken, time.Since(start))
	}
}

func TestHandlerStorageFails(t *testing.T) {
	h, _ := newHandler(t)
	var log strings.Builder
	h.Logger = slog.New(slog.NewTextHandler(&log, nil))
	path := h.Log.path
	h.Log.path = path + "/nowhere"
	h.Log.Close()
	for range 2 {
		w := post(h, message(t, from("x"), nil, good(t)))
		if code := answerCode(t, w.Body.Bytes()); code != msl.ErrInternalException {
			t.Errorf("got %v: an acknowledgement means that the report is stored", code)
		}
	}
	h.Log.path = path
	post(h, message(t, from("x"), nil, good(t)))
	for _, want := range []string{`level=ERROR msg="failure reports cannot be written: `, `level=INFO msg="failure reports can be written again"`} {
		if strings.Count(log.String(), want) != 1 {
			t.Errorf("%s is not there once:\n%s", want, log.String())
		}
	}
	log.Reset()
	for range 50 {
		h.tell(t.Context(), time.Now(), errors.New("no space left on device"))
		h.tell(t.Context(), time.Now(), nil)
	}
	if strings.Count(log.String(), "\n") != 1 {
		t.Errorf("of every second report:\n%s", log.String())
	}
}
