package keyx

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

var joseMechanisms = []JOSEMechanism{JWERSA, JWEJSRSA, JWKRSA, JWKRSAES}

func TestJOSEFreshPairs(t *testing.T) {
	ctx, from := context.Background(), msl.Requester{Identity: "client1", Custody: msl.CustodyImported}
	for _, m := range joseMechanisms {
		store, device := newStore(t), newStore(t)
		responder, requester := &AsymmetricJOSE{Mechanism: m, Store: store}, &AsymmetricJOSE{Mechanism: m, Store: device}
		first, err := requester.Offer(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		second, err := requester.Offer(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		keys, response, err := responder.Respond(ctx, from, first.KeyData())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := second.Accept(ctx, response); !errors.Is(err, msl.ErrUnwrapError) {
			t.Errorf("%s: with another key pair: %v", m, err)
		}
		outcome, err := first.Accept(ctx, response)
		if err != nil || fingerprint(t, outcome.Keys) != fingerprint(t, keys) {
			t.Fatalf("%s: %v", m, err)
		}
		first.Close()
		second.Close()
		resumed, err := requester.Resume(ctx, outcome.Keep)
		if err != nil || fingerprint(t, resumed) != fingerprint(t, keys) {
			t.Errorf("%s: resume: %v", m, err)
		}
		for _, k := range []*msl.SessionKeys{keys, outcome.Keys, resumed} {
			k.Release()
		}
		for what, s := range map[string]interface{ Live() (int, int) }{"responder": store, "requester": device} {
			if n, _ := s.Live(); n != 0 {
				t.Errorf("%s: %d keys of the %s are left", m, n, what)
			}
		}
	}
}

func joseRequest(t testing.TB, mechanism string, public any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(map[string]any{"keypairid": "k", "mechanism": mechanism, "publickey": der})
	return b
}

func TestJOSERequestRefused(t *testing.T) {
	own := recordedPair(t)
	half := new(big.Int).Rsh(own.N, 1024)
	tiny := &rsa.PublicKey{N: half.SetBit(half, 0, 1), E: 65537}
	for _, m := range joseMechanisms {
		x := &AsymmetricJOSE{Mechanism: m, Store: newStore(t)}
		other := "JWK_RSAES"
		if m == JWKRSAES {
			other = "JWK_RSA"
		}
		for what, c := range map[string]struct {
			keydata []byte
			want    msl.Code
		}{
			"nothing":         {[]byte(`{}`), msl.ErrMSLParseError},
			"mechanism":       {joseRequest(t, "JWK_RSAES2", &own.PublicKey), msl.ErrUnidentifiedKeyXMechanism},
			"ECC":             {joseRequest(t, "ECC", &own.PublicKey), msl.ErrUnsupportedKeyXMechanism},
			"RSA":             {joseRequest(t, "RSA", &own.PublicKey), msl.ErrUnsupportedKeyXMechanism},
			"another one":     {joseRequest(t, other, &own.PublicKey), msl.ErrUnsupportedKeyXMechanism},
			"1024 bits":       {joseRequest(t, string(m), tiny), msl.ErrInvalidPublicKey},
			"even exponent":   {joseRequest(t, string(m), &rsa.PublicKey{N: own.N, E: 4}), msl.ErrInvalidPublicKey},
			"no key":          {[]byte(`{"keypairid":"k","mechanism":"` + string(m) + `","publickey":"AAAA"}`), msl.ErrInvalidPublicKey},
			"no public key":   {[]byte(`{"keypairid":"k","mechanism":"` + string(m) + `"}`), msl.ErrMSLParseError},
			"no key pair id":  {[]byte(`{"mechanism":"` + string(m) + `","publickey":"AAAA"}`), msl.ErrMSLParseError},
			"no mechanism id": {[]byte(`{"keypairid":"k","publickey":"AAAA"}`), msl.ErrMSLParseError},
		} {
			_, _, err := x.Respond(context.Background(), msl.Requester{}, c.keydata)
			if !errors.Is(err, c.want) || !errors.Is(x.Check(c.keydata), c.want) {
				t.Errorf("%s, %s: %v, want %v", m, what, err, c.want)
			}
		}
	}
	// A requester that names no mechanism, or another, never gets PKCS #1 v1.5.
	x := &AsymmetricJOSE{Store: newStore(t)}
	if err := x.Check(joseRequest(t, "JWK_RSAES", &own.PublicKey)); !errors.Is(err, msl.ErrUnsupportedKeyXMechanism) {
		t.Errorf("%v", err)
	}
	if err := x.Check(joseRequest(t, "JWE_RSA", &own.PublicKey)); err != nil {
		t.Errorf("%v", err)
	}
	x.Mechanism = "RSA"
	if err := x.Check(joseRequest(t, "RSA", &own.PublicKey)); !errors.Is(err, msl.ErrUnsupportedKeyXMechanism) {
		t.Errorf("%v", err)
	}
}

// TestWeakWrappedRequest refuses public keys that no key store wraps for before session keys are
// made for them.
func TestWeakWrappedRequest(t *testing.T) {
	own := recordedPair(t)
	half := new(big.Int).Rsh(own.N, 1024)
	for what, public := range map[string]*rsa.PublicKey{
		"1024 bits":     {N: half.SetBit(half, 0, 1), E: 65537},
		"9000 bits":     {N: new(big.Int).SetBit(big.NewInt(1), 8999, 1), E: 65537},
		"even modulus":  {N: new(big.Int).Add(own.N, big.NewInt(1)), E: 65537},
		"even exponent": {N: own.N, E: 4},
	} {
		if err := (&AsymmetricWrapped{}).Check(joseRequest(t, rsaMechanism, public)); !errors.Is(err, msl.ErrInvalidPublicKey) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := (&AsymmetricWrapped{}).Check(joseRequest(t, rsaMechanism, &own.PublicKey)); err != nil {
		t.Error(err)
	}
}

// wrapText makes what a peer could send for a mechanism.
func wrapText(t testing.TB, m JOSEMechanism, public *rsa.PublicKey, text string) (b []byte) {
	t.Helper()
	oaep := func(b []byte) ([]byte, error) { return rsa.EncryptOAEP(sha1.New(), rand.Reader, public, b, nil) }
	j, err := jweSuite{algOAEP, encGCM128}.seal([]byte(text), nil, oaep)
	switch m {
	case JWERSA:
		b = j.compact()
	case JWEJSRSA:
		b = j.json()
	case JWKRSA:
		b, err = oaep([]byte(text))
	case JWKRSAES:
		//lint:ignore SA1019 the mechanism is PKCS #1 v1.5
		b, err = rsa.EncryptPKCS1v15(rand.Reader, public, []byte(text))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestJOSEResponseRefused(t *testing.T) {
	ctx, from := context.Background(), msl.Requester{Identity: "client1"}
	own := recordedPair(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encryption := string(forEncryption.withUse().append(nil, make([]byte, 16)))
	signature := string(forSignature.withUse().append(nil, make([]byte, 32)))
	for _, m := range joseMechanisms {
		store := newStore(t)
		pair, err := store.ProvisionKeyPair("awe", keystore.RSADecrypt2048, recordedPair(t))
		if err != nil {
			t.Fatal(err)
		}
		x := &AsymmetricJOSE{Mechanism: m, Store: store, KeyPair: pair.Key.(DecryptingPair), ID: "awe"}
		offer, err := x.Offer(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		answer := func(id string, encryption, signature []byte) error {
			b, _ := json.Marshal(map[string]any{"keypairid": id, "encryptionkey": encryption, "hmackey": signature})
			outcome, err := offer.Accept(ctx, b)
			if err == nil {
				outcome.Keys.Release()
			}
			return err
		}
		good, mac := wrapText(t, m, &own.PublicKey, encryption), wrapText(t, m, &own.PublicKey, signature)
		if err := answer("awe", good, mac); err != nil {
			t.Fatalf("%s: %v", m, err)
		}
		if err := answer("other", good, mac); !errors.Is(err, msl.ErrKeyXResponseRequestMismatch) {
			t.Errorf("%s, another pair: %v", m, err)
		}
		messages := map[string]bool{}
		for _, c := range []struct {
			what string
			data []byte
			want msl.Code
		}{
			{"for another key", wrapText(t, m, &other.PublicKey, encryption), msl.ErrUnwrapError},
			{"no JSON", wrapText(t, m, &own.PublicKey, "no JSON at all"), msl.ErrSessionKeyCreationFailure},
			{"no JWK", wrapText(t, m, &own.PublicKey, `{}`), msl.ErrMSLParseError},
			{"another type", wrapText(t, m, &own.PublicKey, `{"kty":"ec","k":"AA"}`), msl.ErrUnidentifiedJWKType},
			{"another algorithm", wrapText(t, m, &own.PublicKey, `{"kty":"oct","alg":"A128GCM","k":"AA"}`), msl.ErrUnidentifiedJWKAlgorithm},
			{"another key", mac, msl.ErrSessionKeyCreationFailure},
			{"empty key", wrapText(t, m, &own.PublicKey, `{"kty":"oct","alg":"A128CBC","k":""}`), msl.ErrInvalidJWKKeyData},
			{"cut off", good[:len(good)-1], msl.ErrUnwrapError},
			{"empty", []byte{}, msl.ErrUnwrapError},
		} {
			err := answer("awe", c.data, mac)
			if m == JWKRSAES {
				c.want = msl.ErrUnwrapError
				messages[err.Error()] = true
			}
			if jwe := m == JWERSA || m == JWEJSRSA; jwe && (c.what == "cut off" || c.what == "empty") {
				c.want = 0 // anything
			}
			if err == nil || c.want != 0 && !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %v, want %v", m, c.what, err, c.want)
			}
		}
		if m == JWKRSAES && len(messages) != 1 {
			t.Errorf("failures are told apart: %v", messages)
		}
	}
}

func TestJOSEWithoutStore(t *testing.T) {
	// A store that takes no bytes cannot end such an exchange.
	x := &AsymmetricJOSE{Store: noImport{newStore(t)}}
	_, _, err := x.Respond(context.Background(), msl.Requester{}, joseRequest(t, "JWE_RSA", &recordedPair(t).PublicKey))
	if !errors.Is(err, msl.ErrKeyImportError) {
		t.Errorf("%v", err)
	}
	if _, err := (&AsymmetricJOSE{Store: newStore(t), Fresh: keystore.RSAUnwrap2048}).Offer(context.Background(), msl.Requester{}); !errors.Is(err, msl.ErrDecryptNotSupported) {
		t.Errorf("a pair that does not decrypt: %v", err)
	}
	if _, err := (&AsymmetricJOSE{Store: newStore(t)}).Resume(context.Background(), []byte(`{"encryptionkey":"","hmackey":""}`)); !errors.Is(err, msl.ErrKeyXPrivateKeyMissing) {
		t.Errorf("resume without a pair: %v", err)
	}
}

// noImport is a store that does not implement Importer.
type noImport struct{ keystore.Store }

func TestCustodyTable(t *testing.T) {
	rows := CustodyTable(keystore.Provider{Name: "device"}, keystore.Provider{Name: "memory", InProcess: true})
	if len(rows) != 9*2*2+2 { // any store answers TPM_IMPORT, but only a TPM requests it
		t.Errorf("%d rows", len(rows))
	}
	for _, r := range CustodyTable(keystore.Provider{Name: "tpm", TPM: true}) {
		sealed := r.Scheme == "TPM_IMPORT" && r.Mechanism == ""
		if r.Side != msl.RequestingSide || sealed != (r.Custody == msl.CustodySealed) || r.Scheme == "SYMMETRIC_WRAPPED" {
			t.Errorf("%+v", r)
		}
	}
	for _, r := range rows {
		sealed := r.Mechanism == "RSA" || r.Mechanism == "PSK"
		if sealed != (r.Custody == msl.CustodySealed) || r.Where == "" || r.Shared == "" || r.Why == "" || r.Scheme == "" {
			t.Errorf("%+v", r)
		}
		if inside := r.Where == "in the key store alone"; inside != (sealed && r.Provider == "device") {
			t.Errorf("%+v", r)
		}
		if r.Side == msl.RespondingSide && r.Shared == r.Where {
			t.Errorf("shared custody exposes no more: %+v", r)
		}
	}
	for _, r := range CustodyTable(keystore.Provider{Name: "split", SessionsInProcess: true}) {
		if r.Custody != msl.CustodyImported || r.Where != "in this process for as long as the session is used" {
			t.Errorf("%+v", r)
		}
	}
	b, err := json.Marshal(rows[0])
	if want := `"side":"requester","custody":"sealed"`; err != nil || !json.Valid(b) || !strings.Contains(string(b), want) {
		t.Errorf("%s, %v", b, err)
	}
}
