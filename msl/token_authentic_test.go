package msl_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// tokenData is the inside of a service token.
type tokenData struct {
	Encrypted   bool
	ServiceData []byte
}

func insideOf(t *testing.T, token []byte) (inside tokenData, data, signature []byte) {
	t.Helper()
	var outer struct{ TokenData, Signature []byte }
	if err := errors.Join(json.Unmarshal(token, &outer), json.Unmarshal(outer.TokenData, &inside)); err != nil {
		t.Fatal(err)
	}
	return inside, outer.TokenData, outer.Signature
}

// pair signs and verifies.
type pair struct {
	msl.SigningKey
	msl.VerifyKey
}

// believer is an application's own kind of key that believes everything.
type believer struct{ msl.Null }

// changing is how a forger changes a token that is not encrypted.
func changing(token []byte, signature []byte) []byte {
	var outer struct{ TokenData, Signature []byte }
	json.Unmarshal(token, &outer)
	var inside map[string]any
	json.Unmarshal(outer.TokenData, &inside)
	inside["servicedata"] = []byte("role=root")
	outer.TokenData, _ = json.Marshal(inside)
	if signature == nil {
		signature = outer.Signature
	}
	forged, _ := json.Marshal(map[string][]byte{"tokendata": outer.TokenData, "signature": signature})
	return forged
}

// TestSignedTokens makes service tokens that are signed and not encrypted, and changes
// them.
func TestSignedTokens(t *testing.T) {
	store := newStore(t)
	key := symmetric(t, store, serviceKeys)
	signer := provision(t, store, "tokens", keystore.RSASign2048).(crypto.Signer)
	data := []byte("role=user")
	for name, c := range map[string]struct {
		key interface {
			msl.Protector
			msl.Opener
		}
		authentic bool
	}{
		"a key":        {key, true},
		"a ring":       {msl.KeyRing{key}, true},
		"a pair":       {pair{msl.SigningKey{Key: signer}, msl.VerifyKey{Key: signer.Public()}}, true},
		"nothing":      {msl.Null{}, false},
		"believing it": {believer{}, false},
		"by reference": {&msl.Null{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			keys := msl.ServiceTokenKeys{"": c.key}
			token, err := msl.ChangedToken(msl.TokenChange{Name: "st", Data: data, Unencrypted: true}, c.key)
			if err != nil {
				t.Fatal(err)
			}
			inside, _, signature := insideOf(t, token)
			if inside.Encrypted || !bytes.Equal(inside.ServiceData, data) || (len(signature) > 0) != c.authentic {
				t.Errorf("made %+v, signature of %d bytes", inside, len(signature))
			}
			got, err := msl.ParseServiceToken(token, keys, nil, nil)
			if err != nil || !got.Opened || got.Authentic != c.authentic || !bytes.Equal(got.Data, data) {
				t.Errorf("read %+v, %v", got, err)
			}
			for _, signature := range [][]byte{nil, {}, []byte("signed")} {
				got, err := msl.ParseServiceToken(changing(token, signature), keys, nil, nil)
				if err != nil || got.Authentic || got.Opened == c.authentic {
					t.Errorf("forged with the signature %q: %+v, %v", signature, got, err)
				}
				if c.authentic && got.Data != nil {
					t.Errorf("forged data: %q", got.Data)
				}
			}
			if got, err := msl.ParseServiceToken(token, nil, nil, nil); err != nil || got.Opened || got.Authentic || got.Data != nil {
				t.Errorf("without keys: %+v, %v", got, err)
			}
		})
	}
}

// TestAuthenticTokens looks at tokens as an application of a server gets them, from a
// client that makes what it wishes.
func TestAuthenticTokens(t *testing.T) {
	n := softNetwork(t)
	secret := n.server.ServiceTokens[""]
	n.server.ServiceTokens = msl.ServiceTokenKeys{"": secret, "open": msl.Null{}}
	client := n.pskClient("device")
	type seen struct {
		opened, authentic bool
		data              string
	}
	got := map[string]seen{}
	n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		for _, s := range m.ServiceTokens {
			got[s.Name] = seen{s.Opened, s.Authentic, string(s.Data)}
		}
		if len(m.ServiceTokens) == 0 {
			w.SetServiceToken("sealed", []byte("role=user"), msl.BindNone)
			w.ChangeServiceToken(msl.TokenChange{Name: "signed", Data: []byte("role=user"), Unencrypted: true})
			w.SetServiceToken("open", []byte("role=user"), msl.BindNone)
		}
		_, err := io.Copy(w, m.Body)
		return err
	}
	r, _, err := send(t, client, plainly())
	if err != nil || len(r.ServiceTokens) != 3 {
		t.Fatal(r, err)
	}
	for _, s := range r.ServiceTokens {
		if s.Opened || s.Authentic {
			t.Errorf("a client without keys: %+v", s)
		}
	}
	if _, _, err := send(t, client, plainly()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]seen{"sealed": {true, true, "role=user"}, "signed": {true, true, "role=user"}, "open": {true, false, "role=user"}} {
		if got[name] != want {
			t.Errorf("%s: %+v", name, got[name])
		}
	}
	// The client forges them all.
	client.ServiceTokens = msl.ServiceTokenKeys{"": msl.Null{}}
	req := plainly()
	for _, name := range []string{"sealed", "signed", "open"} {
		req.ServiceTokens = append(req.ServiceTokens, msl.TokenChange{Name: name, Data: []byte("role=root")})
	}
	clear(got)
	if _, _, err := send(t, client, req); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]seen{"sealed": {}, "signed": {}, "open": {true, false, "role=root"}} {
		if got[name] != want {
			t.Errorf("forged %s: %+v", name, got[name])
		}
	}
}
