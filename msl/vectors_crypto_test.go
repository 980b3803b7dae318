package msl_test

import (
	"bufio"
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// codesIn reads "number name response" lines.
func codesIn(t *testing.T) map[int]string {
	f, err := os.Open("../testdata/codes.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	codes := map[int]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var number, response int
		var name string
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		if _, err := fmt.Sscan(lines.Text(), &number, &name, &response); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		codes[number] = fmt.Sprintf("%s %d", name, response)
	}
	return codes
}

func TestVectorsCodes(t *testing.T) {
	var v struct {
		Errors []struct {
			Name         string
			InternalCode int
			ResponseCode msl.ResponseCode
			ResponseName string
		}
	}
	readVectors(t, "spec/errors.json", &v)
	ours := map[int]string{}
	for _, code := range msl.Codes() {
		ours[int(code)] = fmt.Sprintf("%s %d", code.Name(), code.Response())
		if code.Text() == "" {
			t.Errorf("%s has no text", code.Name())
		}
	}
	theirs := map[int]string{}
	for _, e := range v.Errors {
		theirs[e.InternalCode-100000] = fmt.Sprintf("%s %d", e.Name, e.ResponseCode)
		if e.ResponseCode.String() != e.ResponseName {
			t.Errorf("response code %d is %s, want %s", e.ResponseCode, e.ResponseCode, e.ResponseName)
		}
	}
	for name, want := range map[string]map[int]string{"errors.json": theirs, "codes.txt": codesIn(t)} {
		if len(want) != 222 {
			t.Errorf("%s has %d codes", name, len(want))
		}
		for _, number := range slices.Sorted(maps.Keys(want)) {
			if ours[number] != want[number] {
				t.Errorf("%s: code %d is %q, want %q", name, number, ours[number], want[number])
			}
		}
		for number := range ours {
			if want[number] == "" {
				t.Errorf("%s: code %d %q is not in it", name, number, ours[number])
			}
		}
	}
}

// sameObject compares two JSON objects without the order of their members.
func sameObject(t *testing.T, got, want []byte) {
	t.Helper()
	var g, w any
	if err := errors.Join(json.Unmarshal(got, &g), json.Unmarshal(want, &w)); err != nil {
		t.Fatal(err)
	}
	if a, b := encode(g), encode(w); !bytes.Equal(a, b) {
		t.Errorf("got %s, want %s", a, b)
	}
}

type envelopeFields struct {
	Version    int
	KeyID      string
	CipherSpec string
	IV         *hexBytes `json:"iv_hex"`
	Ciphertext hexBytes  `json:"ciphertext_hex"`
	Encoding   encoding
}

func (f envelopeFields) envelope() msl.Envelope {
	e := msl.Envelope{Version: f.Version, KeyID: f.KeyID, CipherSpec: f.CipherSpec, Ciphertext: f.Ciphertext}
	if f.IV != nil {
		e.IV = *f.IV
	}
	return e
}

func sameEnvelope(a, b msl.Envelope) bool {
	return a.KeyID == b.KeyID && a.CipherSpec == b.CipherSpec && bytes.Equal(a.IV, b.IV) &&
		(a.IV == nil) == (b.IV == nil) && bytes.Equal(a.Ciphertext, b.Ciphertext)
}

func TestVectorsCiphertextEnvelopes(t *testing.T) {
	var v struct {
		Envelopes []envelopeFields `json:"ciphertext_envelopes"`
		Parse     []struct {
			Input   string
			Result  verdict
			Decrypt verdict `json:"as_symmetric_decrypt_input"`
		} `json:"ciphertext_parse"`
	}
	readVectors(t, "spec/envelopes.json", &v)
	for _, c := range v.Envelopes {
		want := c.envelope()
		got, err := msl.ParseEnvelope(c.Encoding.Bytes)
		if err != nil || !sameEnvelope(got, want) || got.Version != want.Version {
			t.Errorf("%s: read as %+v, %v", c.Encoding.Bytes, got, err)
		}
		sameObject(t, want.Encode(), c.Encoding.Bytes)
	}
	key := symmetric(t, newStore(t), serviceKeys)
	for _, c := range v.Parse {
		got, err := msl.ParseEnvelope([]byte(c.Input))
		checkVerdict(t, c.Input, c.Result, err)
		if c.Result.OK != nil {
			var want envelopeFields
			if err := json.Unmarshal(c.Result.OK, &want); err != nil {
				t.Fatal(err)
			}
			if !sameEnvelope(got, want.envelope()) {
				t.Errorf("%s: read as %+v", c.Input, got)
			}
		}
		// The reference crashes if the iv is absent; this package returns an error.
		_, err = key.Decrypt([]byte(c.Input))
		want := msl.ErrInvalidAlgorithmParams
		if c.Decrypt.Error != nil && c.Decrypt.Error.InternalCode != 0 {
			want = msl.Code(c.Decrypt.Error.InternalCode - 100000)
		}
		if !errors.Is(err, want) {
			t.Errorf("decrypt %s: %v, want %v", c.Input, err, want)
		}
	}
}

// TestEnvelopeVersionsDecrypt has envelopes that name a version: the reference does not look
// at it when it decrypts, so only the members of version 1 count.
func TestEnvelopeVersionsDecrypt(t *testing.T) {
	key := symmetric(t, newStore(t), serviceKeys)
	sealed, err := key.Encrypt([]byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []any{0, 1, 2, 3, -1, 1.5, true, "2", object{}, []any{2}} {
		var e object
		if err := json.Unmarshal(sealed, &e); err != nil {
			t.Fatal(err)
		}
		e["version"] = version
		if got, err := key.Decrypt(encode(e)); string(got) != "data" || err != nil {
			t.Errorf("version %v: %q, %v", version, got, err)
		}
	}
}

// checkVerdict compares an error with a recorded one.
func checkVerdict(t *testing.T, name string, v verdict, err error) {
	t.Helper()
	if v.Error == nil {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	code := msl.Code(v.Error.InternalCode - 100000)
	if !errors.Is(err, code) || int(code.Response()) != v.Error.ResponseCode {
		t.Errorf("%s: %v, want %v", name, err, code)
	}
}

func TestVectorsSignatureEnvelopes(t *testing.T) {
	var v struct {
		Envelopes []struct {
			Version   int
			Signature hexBytes `json:"signature_hex"`
			Bare      hexBytes `json:"bytes_hex"`
			Bytes     encoding
		} `json:"signature_envelopes"`
		Parse []struct {
			Input  []byte `json:"input_b64"`
			Result struct {
				OK struct {
					Signature hexBytes `json:"signature_hex"`
				}
			}
		} `json:"signature_parse"`
	}
	readVectors(t, "spec/envelopes.json", &v)
	for _, c := range v.Envelopes {
		in := c.Bytes.Bytes
		if c.Version == 1 {
			in = c.Bare
		}
		if got := msl.BareSignature(in); !bytes.Equal(got, c.Signature) {
			t.Errorf("%s: signature %x", in, got)
		}
	}
	for _, c := range v.Parse {
		if got := msl.BareSignature(c.Input); !bytes.Equal(got, c.Result.OK.Signature) {
			t.Errorf("%q: signature %x, want %x", c.Input, got, c.Result.OK.Signature)
		}
	}
}

func TestVectorsSymmetric(t *testing.T) {
	var v struct {
		Keys struct {
			Encryption hexBytes `json:"encryptionkey_hex"`
			HMAC       hexBytes `json:"hmackey_hex"`
		}
		Cases []struct {
			Plaintext hexBytes `json:"plaintext_hex"`
			IV        hexBytes `json:"iv_hex"`
			Envelope  encoding
			Signature []byte `json:"signature_over_envelope_b64"`
		} `json:"encrypt_sign"`
	}
	readVectors(t, "spec/symmetric.json", &v)
	key := symmetric(t, newStore(t), rawKeys{"keyid1", v.Keys.Encryption, v.Keys.HMAC})
	for _, c := range v.Cases {
		key.Rand = bytes.NewReader(c.IV)
		got, err := key.Encrypt(c.Plaintext)
		if err != nil {
			t.Fatal(err)
		}
		sameObject(t, got, c.Envelope.Bytes)
		back, err := key.Decrypt(c.Envelope.Bytes)
		if err != nil || !bytes.Equal(back, c.Plaintext) {
			t.Errorf("decrypt gives %x, %v; want %x", back, err, c.Plaintext)
		}
		sum, err := key.Sign(c.Envelope.Bytes)
		if err != nil || !bytes.Equal(sum, c.Signature) {
			t.Errorf("signature %x, %v; want %x", sum, err, c.Signature)
		}
		checkVerify(t, key, c.Envelope.Bytes, c.Signature)
	}
}

// checkVerify verifies a signature in both forms, and refuses changed ones.
func checkVerify(t *testing.T, o msl.Opener, data, signature []byte) {
	t.Helper()
	envelope := encode(object{"version": 2, "algorithm": "SHA256withRSA", "signature": signature}) // the name is ignored
	for _, s := range [][]byte{signature, envelope} {
		if err := o.Verify(data, s); err != nil {
			t.Errorf("verify %q: %v", s, err)
		}
	}
	changed := append([]byte{}, signature...)
	changed[len(changed)-1] ^= 1
	for _, s := range [][]byte{changed, nil, {}, signature[:len(signature)-1], append(append([]byte{}, signature...), 0)} {
		if err := o.Verify(data, s); !msl.IsSignatureError(err) {
			t.Errorf("verify with signature %x: %v", s, err)
		}
	}
	if err := o.Verify(append([]byte{0}, data...), signature); !msl.IsSignatureError(err) {
		t.Errorf("verify of other data: %v", err)
	}
}

func TestVectorsAsymmetric(t *testing.T) {
	var v struct {
		Cases []struct {
			Context   string
			Key       string
			Data      hexBytes `json:"data_hex"`
			Signature hexBytes `json:"signature_hex"`
		}
	}
	readVectors(t, "spec/asymmetric.json", &v)
	algorithms := map[string]keystore.Algorithm{"client5_rsa2048": keystore.RSASign2048, "client8_ec_p256": keystore.ECDSAP256}
	seen := 0
	for _, c := range v.Cases {
		if len(c.Signature) == 0 {
			continue // encryption under RSA is used by no message
		}
		seen++
		opener := msl.VerifyKey{Key: publicKey(t, c.Key)}
		checkVerify(t, opener, c.Data, c.Signature)
		signer := msl.SigningKey{Key: provisionPair(t, newStore(t), "key", algorithms[c.Key], keyPair(t, c.Key)).(crypto.Signer)}
		signature, err := signer.Sign(c.Data)
		if err != nil {
			t.Fatal(err)
		}
		checkVerify(t, opener, c.Data, signature)
		if algorithms[c.Key] == keystore.RSASign2048 && !bytes.Equal(signature, c.Signature) {
			t.Error("another RSA signature than the recorded one")
		}
		plain, err := signer.Encrypt(c.Data)
		if back, err2 := opener.Decrypt(plain); err != nil || err2 != nil || !bytes.Equal(back, c.Data) {
			t.Error("data does not pass through")
		}
	}
	if seen != 2 {
		t.Errorf("%d cases", seen)
	}
}

func TestVectorsCapabilities(t *testing.T) {
	var v struct {
		Encodings []encoding
		Parse     []struct {
			Input  string
			Result verdict
		}
	}
	readVectors(t, "spec/capabilities.json", &v)
	for _, e := range v.Encodings {
		c, err := msl.ParseCapabilities(e.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		sameObject(t, c.Encode(), encode(object{"capabilities": json.RawMessage(e.Bytes)}))
	}
	for _, p := range v.Parse {
		c, err := msl.ParseCapabilities([]byte(p.Input))
		checkVerdict(t, p.Input, p.Result, err)
		if err != nil {
			continue
		}
		var want struct{ CompressionAlgos, Languages []string }
		if err := json.Unmarshal(p.Result.OK, &want); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(c.Compression, want.CompressionAlgos) || !slices.Equal(c.Languages, want.Languages) {
			t.Errorf("%s: read as %+v", p.Input, c)
		}
	}
}
