package msl_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

type tokenVectors struct {
	MasterTokens []struct {
		RenewalWindow, Expiration    int64
		SequenceNumber, SerialNumber int64
		IssuerData                   *string
		Identity                     string
		EncryptionKey                hexBytes `json:"encryptionkey_hex"`
		SignatureKey                 hexBytes `json:"signaturekey_hex"`
		SignatureAlgorithm           string
		Encoding                     encoding
	}
	UserIDTokens []struct {
		RenewalWindow, Expiration    int64
		MTSerialNumber, SerialNumber int64
		Identity                     string
		Encoding                     encoding
	}
	ServiceTokens []struct {
		Name              string
		Data              []byte `json:"data_b64"`
		MTSerialNumber    *int64
		UITSerialNumber   *int64
		ActualCompression string `json:"actual_compression"`
		CryptoContext     string `json:"crypto_context"`
		Encoding          encoding
	}
}

func readTokens(t testing.TB) (v tokenVectors) {
	t.Helper()
	readVectors(t, "spec/tokens.json", &v)
	return v
}

// newIssuer makes an issuer with the recorded keys.
func newIssuer(t testing.TB, shared bool) *msl.Issuer {
	t.Helper()
	store := newStore(t)
	keys := symmetric(t, store, issuerKeys)
	return &msl.Issuer{Name: "server1", Store: store, Shared: shared, Time: func() time.Time { return fixedTime },
		Keys: []msl.IssuerKeys{{Version: 1, Encryption: keys.Encryption, MAC: keys.MAC}}}
}

func TestVectorsMasterTokens(t *testing.T) {
	issuer, closed := newIssuer(t, true), newIssuer(t, false)
	for _, c := range readTokens(t).MasterTokens {
		token, err := msl.ParseMasterToken(c.Encoding.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if token.RenewalWindow.Unix() != c.RenewalWindow || token.Expiration.Unix() != c.Expiration ||
			token.SequenceNumber != c.SequenceNumber || token.SerialNumber != c.SerialNumber ||
			!bytes.Equal(token.Bytes(), c.Encoding.Bytes) {
			t.Errorf("%s: read as %+v", c.Encoding.Bytes, token)
		}
		session, err := issuer.Open(token)
		if err != nil {
			t.Fatal(err)
		}
		if session.Identity != c.Identity || session.Token.SerialNumber != c.SerialNumber {
			t.Errorf("session %+v, want identity %q", session, c.Identity)
		}
		if (c.IssuerData == nil) != (session.IssuerData == nil) || c.IssuerData != nil && *c.IssuerData != string(session.IssuerData) {
			t.Errorf("issuer data %q", session.IssuerData)
		}
		checkSessionKeys(t, session.Keys, c.EncryptionKey, c.SignatureKey)
		session.Release()
		if _, err := closed.Open(token); !errors.Is(err, msl.ErrMasterTokenUntrusted) {
			t.Errorf("issuer that does not share opens the token: %v", err)
		}
	}
	for _, i := range []*msl.Issuer{issuer, closed} {
		if n, _ := i.Store.(interface{ Live() (int, int) }).Live(); n != 0 {
			t.Errorf("%d keys were not closed", n)
		}
	}
}

// checkSessionKeys compares handles on keys with the bytes they should have.
func checkSessionKeys(t *testing.T, keys *msl.SessionKeys, encryption, mac []byte) {
	t.Helper()
	raw := rawKeys{"x", encryption, mac}
	key := msl.SymmetricKey{KeyID: "x", Encryption: keys.Encryption, MAC: keys.Signature}
	sealed, err := key.Encrypt([]byte("plaintext"))
	if err != nil {
		t.Fatal(err)
	}
	if back, err := raw.decrypt(sealed); err != nil || string(back) != "plaintext" {
		t.Errorf("another encryption key: %q, %v", back, err)
	}
	if back, err := key.Decrypt(raw.encrypt([]byte("plaintext"))); err != nil || string(back) != "plaintext" {
		t.Errorf("another encryption key: %q, %v", back, err)
	}
	sum, err := key.Sign(sealed)
	if err != nil {
		t.Fatal(err)
	}
	if len(mac) == 32 {
		if err := raw.verify(sealed, sum); err != nil {
			t.Error("another signature key")
		}
		return
	}
	store := newStore(t) // judged by the store's own vectors
	cmac := provisionRaw(t, store, "cmac", keystore.AESCMAC128, mac).(keystore.MAC)
	if want, err := cmac.Sum(sealed); err != nil || !bytes.Equal(sum, want) {
		t.Error("another CMAC key")
	}
}

func TestVectorsUserIDTokens(t *testing.T) {
	issuer := newIssuer(t, false)
	for _, c := range readTokens(t).UserIDTokens {
		token, err := msl.ParseUserIDToken(c.Encoding.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if token.RenewalWindow.Unix() != c.RenewalWindow || token.Expiration.Unix() != c.Expiration ||
			token.SerialNumber != c.SerialNumber || token.MasterToken != c.MTSerialNumber {
			t.Errorf("%s: read as %+v", c.Encoding.Bytes, token)
		}
		if user, err := issuer.OpenUser(token); err != nil || user != c.Identity {
			t.Errorf("user %q, %v; want %q", user, err, c.Identity)
		}
	}
}

func orUnbound(n *int64) int64 {
	if n == nil {
		return msl.Unbound
	}
	return *n
}

func TestVectorsServiceTokens(t *testing.T) {
	v := readTokens(t)
	mt, err := msl.ParseMasterToken(v.MasterTokens[0].Encoding.Bytes)
	uit, err2 := msl.ParseUserIDToken(v.UserIDTokens[0].Encoding.Bytes)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	store := newStore(t)
	keys := symmetric(t, store, serviceKeys)
	byName := msl.ServiceTokenKeys{"st.null": msl.Null{}, "": keys}
	for _, c := range v.ServiceTokens {
		token, err := msl.ParseServiceToken(c.Encoding.Bytes, byName, mt, uit)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if token.Name != c.Name || token.MasterToken != orUnbound(c.MTSerialNumber) || token.UserIDToken != orUnbound(c.UITSerialNumber) {
			t.Errorf("%s: read as %+v", c.Name, token)
		}
		if !bytes.Equal(token.Data, c.Data) || token.Data == nil || !token.Opened {
			t.Errorf("%s: data %q, opened %v", c.Name, token.Data, token.Opened)
		}
		unread, err := msl.ParseServiceToken(c.Encoding.Bytes, nil, mt, uit)
		if deletion := len(c.Data) == 0; err != nil || unread.Opened || (unread.Data != nil) != deletion {
			t.Errorf("%s without keys: %+v, %v", c.Name, unread, err)
		}
		checkBinding(t, c.Encoding.Bytes, byName, token, mt, uit)
	}
}

// checkBinding leaves out the tokens that a service token is bound to.
func checkBinding(t *testing.T, b []byte, keys msl.ServiceTokenKeys, token *msl.ServiceToken, mt *msl.MasterToken, uit *msl.UserIDToken) {
	t.Helper()
	other := *mt
	other.SerialNumber++
	for _, without := range []*msl.MasterToken{nil, &other} {
		_, err := msl.ParseServiceToken(b, keys, without, uit)
		if bound := token.MasterToken != msl.Unbound; bound != errors.Is(err, msl.ErrServiceTokenMasterTokenMismatch) || bound != (err != nil) {
			t.Errorf("%s with another master token: %v", token.Name, err)
		}
	}
	otherUser := *uit
	otherUser.SerialNumber++
	for _, without := range []*msl.UserIDToken{nil, &otherUser} {
		_, err := msl.ParseServiceToken(b, keys, mt, without)
		if bound := token.UserIDToken != msl.Unbound; bound != errors.Is(err, msl.ErrServiceTokenUserIDTokenMismatch) || bound != (err != nil) {
			t.Errorf("%s with another user id token: %v", token.Name, err)
		}
	}
}

func TestServiceTokenWritten(t *testing.T) {
	key := symmetric(t, newStore(t), serviceKeys)
	long := bytes.Repeat([]byte("service data "), 50)
	for _, c := range []struct {
		data        []byte
		compression string
		compressed  bool
	}{{[]byte("small"), "", false}, {[]byte("small"), "GZIP", false}, {long, "GZIP", true}, {long, "LZW", true}, {nil, "GZIP", false}} {
		b, err := msl.NewServiceToken("name", c.data, msl.Unbound, msl.Unbound, key, c.compression)
		if err != nil {
			t.Fatal(err)
		}
		var outer struct{ TokenData, Signature []byte }
		var inner struct {
			Encrypted       bool
			CompressionAlgo *string
			MTSerialNumber  *int64
			ServiceData     []byte
		}
		if err := errors.Join(json.Unmarshal(b, &outer), json.Unmarshal(outer.TokenData, &inner)); err != nil {
			t.Fatal(err)
		}
		if inner.MTSerialNumber != nil || (inner.CompressionAlgo != nil) != c.compressed {
			t.Errorf("token data %s", outer.TokenData)
		}
		if len(c.data) == 0 { // a deletion is neither encrypted nor signed
			if inner.Encrypted || len(outer.Signature) > 0 || len(inner.ServiceData) > 0 {
				t.Errorf("deletion token %s", b)
			}
			continue
		}
		if err := serviceKeys.verify(outer.TokenData, outer.Signature); err != nil || !inner.Encrypted {
			t.Errorf("token %s: %v", b, err)
		}
		back, err := msl.ParseServiceToken(b, msl.ServiceTokenKeys{"name": key}, nil, nil)
		if err != nil || !bytes.Equal(back.Data, c.data) || !back.Opened {
			t.Errorf("read back as %+v, %v", back, err)
		}
	}
}

func TestNewerThan(t *testing.T) {
	const max = 1 << 53
	token := func(sequence, expiration int64) *msl.MasterToken {
		return &msl.MasterToken{SequenceNumber: sequence, Expiration: time.Unix(expiration, 0)}
	}
	for _, c := range []struct {
		a, b int64
		want bool
	}{{0, max, true}, {126, max, true}, {127, max, false}, {max, 126, false}, {max, 127, true}, {max, 0, false}, {1, 0, true}, {0, 1, false}} {
		if got := token(c.a, 0).NewerThan(token(c.b, 0)); got != c.want {
			t.Errorf("%d newer than %d: %v", c.a, c.b, got)
		}
	}
	if token(5, 10).NewerThan(token(5, 10)) || !token(5, 11).NewerThan(token(5, 10)) || token(5, 9).NewerThan(token(5, 10)) {
		t.Error("the later expiration must win between equal sequence numbers")
	}
}
