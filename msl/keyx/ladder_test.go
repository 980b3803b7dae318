package keyx

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// ladders is a responder and a requester that share the recorded keys.
func ladders(t testing.TB, form LadderForm) (responder *LadderResponder, requester *LadderOfferer) {
	t.Helper()
	var v keyxVectors
	readVectors(t, "spec/keyx.json", &v)
	store, device := newStore(t), newStore(t)
	responder = &LadderResponder{Form: form, Store: store, PSK: pskOf(t, store, v)}
	requester = &LadderOfferer{Form: form, Store: device, Own: provision(t, device, "psk", keystore.AESReveal128, v.PSK.Wrapping).(keystore.Revealer)}
	t.Cleanup(func() { requester.Close() })
	return responder, requester
}

var forms = []LadderForm{JWELadder, JWKLadder}

func mechanismOf(t testing.TB, keydata []byte) string {
	t.Helper()
	f := wire.ParseFields(keydata)
	m := f.String("mechanism")
	if f.Err() != nil {
		t.Fatal(f.Err())
	}
	return m
}

// bytesOf reads a binary member of key data.
func bytesOf(keydata []byte, name string) ([]byte, error) {
	f := wire.ParseFields(keydata)
	return f.Bytes(name), f.Err()
}

// step goes one rung up.
func climb(t *testing.T, responder *LadderResponder, requester *LadderOfferer, want string) {
	t.Helper()
	ctx, from := context.Background(), msl.Requester{Identity: "client1", Custody: msl.CustodyImported}
	offer, err := requester.Offer(ctx, from)
	if err != nil {
		t.Fatal(err)
	}
	defer offer.Close()
	if got := mechanismOf(t, offer.KeyData()); got != want {
		t.Errorf("offers %s, want %s", got, want)
	}
	keys, response, err := responder.Respond(ctx, from, offer.KeyData())
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Release()
	outcome, err := offer.Accept(ctx, response)
	if err != nil {
		t.Fatal(err)
	}
	defer outcome.Keys.Release()
	if fingerprint(t, outcome.Keys) != fingerprint(t, keys) {
		t.Error("other session keys")
	}
}

func TestLadderClimbs(t *testing.T) {
	for _, form := range forms {
		responder, requester := ladders(t, form)
		climb(t, responder, requester, "PSK")
		for range 5 {
			climb(t, responder, requester, "WRAP")
		}
		// An offer that is not answered begins again.
		offer, err := requester.Offer(context.Background(), msl.Requester{Identity: "client1"})
		if err != nil {
			t.Fatal(err)
		}
		offer.Close()
		climb(t, responder, requester, "PSK")
		// Without a pre-shared key the ladder is all there is.
		requester.Own = nil
		offer, _ = requester.Offer(context.Background(), msl.Requester{Identity: "client1"})
		offer.Close()
		climb(t, responder, requester, "WRAP")
		requester.Close()
		if _, err := requester.Offer(context.Background(), msl.Requester{Identity: "client1"}); !errors.Is(err, msl.ErrKeyXWrappingKeyMissing) {
			t.Errorf("%v", err)
		}
		if n, _ := requester.Store.(interface{ Live() (int, int) }).Live(); n != 0 {
			t.Errorf("%d keys are left", n)
		}
	}
}

func wrapRequest(wrapdata []byte) []byte {
	b, _ := json.Marshal(map[string]any{"mechanism": "WRAP", "wrapdata": wrapdata})
	return b
}

func TestLadderRequestRefused(t *testing.T) {
	ctx := context.Background()
	from := msl.Requester{Identity: "client1", Custody: msl.CustodyImported}
	for _, form := range forms {
		responder, requester := ladders(t, form)
		offer, _ := requester.Offer(ctx, from)
		_, response, err := responder.Respond(ctx, from, offer.KeyData())
		if err != nil {
			t.Fatal(err)
		}
		wrapdata, _ := bytesOf(response, "wrapdata")
		forged := bytes.Clone(wrapdata)
		forged[len(forged)-1] ^= 1
		other, _ := ladders(t, form)
		noPSK := &LadderResponder{Form: form, Store: responder.Store}
		anotherForm := &LadderResponder{Form: map[LadderForm]LadderForm{JWELadder: JWKLadder, JWKLadder: JWELadder}[form], Store: responder.Store}
		for what, c := range map[string]struct {
			x       *LadderResponder
			from    string
			custody msl.Custody
			keydata []byte
			want    msl.Code
		}{
			"nothing":            {responder, "client1", 1, []byte(`{}`), msl.ErrMSLParseError},
			"mechanism":          {responder, "client1", 1, []byte(`{"mechanism":"SESSION"}`), msl.ErrUnidentifiedKeyXMechanism},
			"no wrapdata":        {responder, "client1", 1, []byte(`{"mechanism":"WRAP"}`), msl.ErrMSLParseError},
			"empty wrapdata":     {responder, "client1", 1, wrapRequest([]byte{}), msl.ErrKeyXWrappingKeyMissing},
			"changed wrapdata":   {responder, "client1", 1, wrapRequest(forged), msl.ErrKeyXWrappingKeyMissing},
			"of another store":   {other, "client1", 1, wrapRequest(wrapdata), msl.ErrKeyXWrappingKeyMissing},
			"of another entity":  {responder, "client2", 1, wrapRequest(wrapdata), msl.ErrKeyXWrappingKeyMissing},
			"of another ladder":  {anotherForm, "client1", 1, wrapRequest(wrapdata), msl.ErrKeyXWrappingKeyMissing},
			"no pre-shared keys": {noPSK, "client1", 1, []byte(`{"mechanism":"PSK"}`), msl.ErrUnsupportedKeyXMechanism},
			"unknown entity":     {responder, "client9", 1, []byte(`{"mechanism":"PSK"}`), msl.ErrEntityNotFound},
			"shared, no key":     {responder, "client1", 2, wrapRequest(wrapdata), msl.ErrUnwrapNotSupported},
			"shared, cannot":     {responder, "client1", 2, []byte(`{"mechanism":"PSK"}`), msl.ErrWrapError},
		} {
			if _, _, err := c.x.Respond(ctx, msl.Requester{Identity: c.from, Custody: c.custody}, c.keydata); !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %v, want %v", form, what, err, c.want)
			}
		}
		issuer := random(16)
		responder.Wrapping = provision(t, newStore(t), "w", keystore.AESWrap128, issuer).(keystore.DataWrapper)
		responder.Revealing = provision(t, newStore(t), "r", keystore.AESReveal128, issuer).(keystore.Revealer)
		shared := msl.Requester{Identity: "client1", Custody: msl.CustodyShared}
		for n, want := range map[int]msl.Code{8: msl.ErrUnwrapError, 23: msl.ErrCiphertextIllegalBlockSize, 24: msl.ErrUnwrapError} {
			if _, _, err := responder.Respond(ctx, shared, wrapRequest(random(n))); !errors.Is(err, want) {
				t.Errorf("%s, %d bytes of noise as wrapdata: %v", form, n, err)
			}
		}
		if _, _, err := responder.Respond(ctx, shared, wrapRequest(bytes.Repeat([]byte{0xa6}, 8))); !errors.Is(err, msl.ErrKeyXWrappingKeyMissing) {
			t.Errorf("%s, wrapdata of no key: %v", form, err)
		}
		_, response, err = responder.Respond(ctx, shared, []byte(`{"mechanism":"PSK"}`))
		if err != nil {
			t.Fatal(err)
		}
		if wrapdata, _ = bytesOf(response, "wrapdata"); len(wrapdata) != 24 {
			t.Errorf("%s: shared wrapdata of %d bytes", form, len(wrapdata))
		}
		if _, _, err := responder.Respond(ctx, shared, wrapRequest(wrapdata)); err != nil {
			t.Errorf("%s: %v", form, err)
		}
		odd, _ := responder.Wrapping.WrapData(random(24))
		if _, _, err := responder.Respond(ctx, shared, wrapRequest(odd)); !errors.Is(err, msl.ErrWrapKeyCreationFailure) {
			t.Errorf("%s, a wrapping key of 24 bytes: %v", form, err)
		}
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	orRandom(nil).Read(b)
	return b
}

func TestLadderResponseRefused(t *testing.T) {
	ctx := context.Background()
	from := msl.Requester{Identity: "client1", Custody: msl.CustodyImported}
	for _, form := range forms {
		responder, requester := ladders(t, form)
		for _, mechanism := range []string{"PSK", "WRAP"} {
			offer, err := requester.Offer(ctx, from)
			if err != nil || mechanismOf(t, offer.KeyData()) != mechanism {
				t.Fatalf("%s: %v", offer.KeyData(), err)
			}
			_, response, err := responder.Respond(ctx, from, offer.KeyData())
			if err != nil {
				t.Fatal(err)
			}
			bare, odd := msl.ErrUnwrapError, msl.ErrCiphertextIllegalBlockSize
			if mechanism == "WRAP" {
				bare, odd = msl.ErrInvalidSymmetricKey, msl.ErrInvalidSymmetricKey
			}
			noJWK := laddered(t, responder, requester, offer, []byte("no JSON, but so many bytes"))
			another := laddered(t, responder, requester, offer, []byte(`{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAA"}`))
			for _, c := range []struct {
				name string
				data []byte
				want msl.Code
			}{
				{"wrapkey", nil, msl.ErrMSLParseError}, {"wrapdata", nil, msl.ErrMSLParseError},
				{"encryptionkey", nil, msl.ErrMSLParseError}, {"hmackey", nil, msl.ErrMSLParseError},
				{"wrapkey", noise(form, 0), bare}, {"encryptionkey", noise(form, 0), msl.ErrInvalidSymmetricKey}, {"hmackey", noise(form, 0), msl.ErrInvalidSymmetricKey},
				{"wrapkey", noise(form, 1), odd}, {"hmackey", noise(form, 1), msl.ErrInvalidSymmetricKey},
				{"wrapkey", noJWK, msl.ErrInvalidJWK}, {"wrapkey", another, msl.ErrSessionKeyCreationFailure},
			} {
				if _, err := offer.Accept(ctx, replaced(t, response, c.name, c.data)); !errors.Is(err, c.want) {
					t.Errorf("%s %s, %s %q: %v, want %v", form, mechanism, c.name, c.data, err, c.want)
				}
			}
			if _, err := offer.Accept(ctx, response); err != nil {
				t.Errorf("%s %s after refusals: %v", form, mechanism, err)
			}
		}
	}
}

// noise is well-formed, and does not unwrap. It has some bytes more than AES Key Wrap writes.
func noise(form LadderForm, more int) []byte {
	if form == JWKLadder {
		return random(120 + more)
	}
	j, err := jweSuite{algKW, encGCM128}.seal([]byte("{}"), nil, func([]byte) ([]byte, error) { return random(24 + more), nil })
	if err != nil {
		panic(err)
	}
	return j.json()
}

// laddered wraps a text under the key that the offer asks for.
func laddered(t *testing.T, responder *LadderResponder, requester *LadderOfferer, offer msl.Offer, text []byte) []byte {
	t.Helper()
	r, err := responder.parse(offer.KeyData())
	if err != nil {
		t.Fatal(err)
	}
	parent, release, err := responder.parent(context.Background(), msl.Requester{Identity: "client1"}, r)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if responder.Form == JWKLadder {
		b, err := parent.WrapData(pad(text).Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	j, err := jweSuite{algKW, encGCM128}.seal(text, nil, parent.WrapData)
	if err != nil {
		t.Fatal(err)
	}
	return j.json()
}

// replaced is a response with another member, or without it.
func replaced(t *testing.T, keydata []byte, name string, value []byte) []byte {
	t.Helper()
	all := map[string]any{}
	if err := json.Unmarshal(keydata, &all); err != nil {
		t.Fatal(err)
	}
	if all[name] = value; value == nil {
		delete(all, name)
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzLadder(f *testing.F) {
	var v keyxVectors
	readVectors(f, "spec/keyx.json", &v)
	for _, c := range v.Cases {
		if c.Error == nil && c.Name[1:] >= "WE_LADDER" {
			f.Add(keydata(f, c.Request.B64))
			f.Add(keydata(f, c.Response.B64))
		}
	}
	store := newStore(f)
	psk := pskOf(f, store, v)
	own := provision(f, store, "own", keystore.AESReveal128, v.PSK.Wrapping).(keystore.Revealer)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, form := range forms {
			requester := &LadderOfferer{Form: form, Store: store, Own: own}
			fuzzKeyData(t, &LadderResponder{Form: form, Store: store, PSK: psk}, requester, b)
			requester.Close()
		}
	})
}

func FuzzAsymmetric(f *testing.F) {
	var v keyxVectors
	readVectors(f, "spec/keyx.json", &v)
	for _, c := range v.Cases {
		if c.Error == nil && c.Name[0] == 'A' {
			f.Add(keydata(f, c.Request.B64))
			f.Add(keydata(f, c.Response.B64))
		}
	}
	store := newStore(f)
	pair, err := store.ProvisionKeyPair("awe", keystore.RSADecrypt2048, recordedPair(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []JOSEMechanism{JWERSA, JWEJSRSA, JWKRSA, JWKRSAES} {
			x := &AsymmetricJOSE{Mechanism: m, Store: store, KeyPair: pair.Key.(DecryptingPair), ID: "awe_rsa2048"}
			fuzzKeyData(t, x, x, b)
		}
	})
}
