package keyx

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

type keyxVectors struct {
	DHX     hexBytes `json:"client_dh_x_hex"`
	MSLKeys struct {
		Wrapping hexBytes `json:"wrappingkey_hex"`
	}
	PSK struct {
		Encryption hexBytes `json:"encryptionkey_hex"`
		HMAC       hexBytes `json:"hmackey_hex"`
		Wrapping   hexBytes `json:"wrappingkey_hex"`
	} `json:"pskkeys"`
	Cases []keyxVector
}

type keyxVector struct {
	Name              string
	Request, Response struct {
		B64 []byte `json:"b64"`
	}
	Draws       []hexBytes `json:"random_draws_hex"`
	SessionKeys struct {
		Encryption hexBytes `json:"encryptionkey_hex"`
		HMAC       hexBytes `json:"hmackey_hex"`
	}
	PreviousKey  hexBytes `json:"previous_wrapkey_hex"`
	PreviousData []byte   `json:"previous_wrapdata_b64"`
	Error        *struct{ InternalCode int }
}

// keydata is the object inside of an encoded request or response.
func keydata(t testing.TB, b []byte) []byte {
	t.Helper()
	var d struct{ KeyData json.RawMessage }
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return d.KeyData
}

// draws is the recorded random stream, with the number that a JWE ladder draws
// first and that was not recorded with the others (Java adds its lower half as a
// signed number).
func (v keyxVector) draws() *bytes.Reader {
	var all []byte
	if strings.HasPrefix(v.Name, "JWE_LADDER") {
		all = []byte{0x72, 0x9f, 0xd2, 0x68, 0xbe, 0x87, 0xd4, 0xcc}
	}
	for _, d := range v.Draws {
		all = append(all, d...)
	}
	return bytes.NewReader(all)
}

// one is a directory of one entity.
type one struct{ entity *msl.Entity }

func (d one) Entity(_ context.Context, identity string) (*msl.Entity, error) {
	if identity != d.entity.Identity {
		return nil, keystore.ErrNotFound
	}
	return d.entity, nil
}

// pskOf registers the recorded entity.
func pskOf(t testing.TB, s *soft.Store, v keyxVectors) *entityauth.PSK {
	t.Helper()
	seal := func(use string, a keystore.Algorithm, raw []byte) []byte {
		k, err := s.Import(a, raw)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := s.Seal(k, msl.PSKContext(use, "client1"))
		if err != nil {
			t.Fatal(err)
		}
		return blob
	}
	psk := &entityauth.PSK{Store: s, Directory: one{&msl.Entity{Identity: "client1", Scheme: "PSK", PSK: &msl.SealedPSK{
		Encryption: seal(msl.PSKEncryption, keystore.AES128CBC, v.PSK.Encryption),
		MAC:        seal(msl.PSKMAC, keystore.HMACSHA256, v.PSK.HMAC),
		Wrapping:   seal(msl.PSKWrapping, keystore.AESWrap128, v.PSK.Wrapping),
	}}}}
	t.Cleanup(func() { psk.Close() })
	return psk
}

// smallGroup is the parameter group of the recordings.
func smallGroup() DHGroup {
	p, _ := new(big.Int).SetString("c2048e076b268761db1427ba3ad98473d32b0abdee98c0827923426f294eda3392bf0032a1d8092055b58baa07586a7d3e271c39a8c891f5ceea4debdfa6b023", 16)
	return DHGroup{ID: "dh_default1", P: p, G: big.NewInt(2)}
}

// responder is this side of a recorded exchange, requester the other one.
func (v keyxVectors) sides(t testing.TB, c keyxVector) (responder msl.Responder, requester msl.Offerer) {
	store, device := newStore(t), newStore(t)
	psk := pskOf(t, store, v)
	scheme, mechanism, _ := strings.Cut(c.Name, " ")
	switch scheme {
	case "ASYMMETRIC_WRAPPED":
		if mechanism == rsaMechanism {
			pair, err := device.ProvisionKeyPair("awe", keystore.RSAUnwrap2048, recordedPair(t))
			if err != nil {
				t.Fatal(err)
			}
			return &AsymmetricWrapped{Store: store}, &AsymmetricWrapped{Store: device, KeyPair: pair.Key.(UnwrappingPair), ID: "awe_rsa2048"}
		}
		pair, err := device.ProvisionKeyPair("awe", keystore.RSADecrypt2048, recordedPair(t))
		if err != nil {
			t.Fatal(err)
		}
		m := JOSEMechanism(mechanism)
		return &AsymmetricJOSE{Mechanism: m, Store: store, Rand: c.draws()},
			&AsymmetricJOSE{Mechanism: m, Store: device, KeyPair: pair.Key.(DecryptingPair), ID: "awe_rsa2048"}
	case "SYMMETRIC_WRAPPED":
		own := entityauth.NewKeySet(nil, nil, provision(t, device, "psk", keystore.AESUnwrap128, v.PSK.Wrapping))
		return &SymmetricResponder{Store: store, PSK: psk}, &SymmetricOfferer{Keys: own}
	case "DIFFIE_HELLMAN":
		x := append(make([]byte, 64-len(v.DHX)), v.DHX...)
		return &DiffieHellman{Store: store, Groups: []DHGroup{smallGroup()}, AllowSmallGroups: true},
			&DiffieHellman{Store: device, Groups: []DHGroup{smallGroup()}, AllowSmallGroups: true, Rand: bytes.NewReader(x)}
	}
	requesting := &LadderOfferer{Form: LadderForm(scheme), Store: device, Own: provision(t, device, "psk", keystore.AESReveal128, v.PSK.Wrapping).(keystore.Revealer)}
	if mechanism == byWrap {
		requesting.hold("client1", rung{}, rung{c.PreviousData, provision(t, device, "previous", keystore.AESReveal128, c.PreviousKey).(keystore.Revealer)})
	}
	return &LadderResponder{Form: LadderForm(scheme), Store: store, PSK: psk, Rand: c.draws(),
		Wrapping:  provision(t, store, "issuer", keystore.AESWrap128, v.MSLKeys.Wrapping).(keystore.DataWrapper),
		Revealing: provision(t, store, "issuer reveals", keystore.AESReveal128, v.MSLKeys.Wrapping).(keystore.Revealer)}, requesting
}

// fingerprint is what session keys do.
func fingerprint(t testing.TB, k *msl.SessionKeys) string {
	t.Helper()
	c, err := k.Encryption.Encrypt(make([]byte, 16), []byte("the same key does the same"))
	m, err2 := k.Signature.Sum([]byte("the same key does the same"))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return string(c) + string(m)
}

// rawFingerprint is what known session keys do.
func rawFingerprint(t testing.TB, encryption, mac []byte) string {
	t.Helper()
	s := newStore(t)
	e, err := s.Import(keystore.AES128CBC, encryption)
	m, err2 := s.Import(keystore.HMACSHA256, mac)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return fingerprint(t, msl.NewSessionKeys(e.(keystore.Cipher), m.(keystore.MAC)))
}

func sameObject(t *testing.T, what string, a, b []byte) {
	t.Helper()
	var x, y map[string]any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Fatal(err)
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	if !bytes.Equal(p, q) {
		t.Errorf("%s: %s, want %s", what, p, q)
	}
}

func TestVectorsExchanges(t *testing.T) {
	var v keyxVectors
	readVectors(t, "spec/keyx.json", &v)
	seen := 0
	for _, c := range v.Cases {
		t.Run(c.Name, func(t *testing.T) {
			seen++
			v.checkExchange(t, c)
		})
	}
	if seen < 12 {
		t.Errorf("%d cases", seen)
	}
}

func (v keyxVectors) checkExchange(t *testing.T, c keyxVector) {
	ctx := context.Background()
	responder, requester := v.sides(t, c)
	from := msl.Requester{Identity: "client1", Custody: msl.CustodyShared}
	request := keydata(t, c.Request.B64)
	if err := responder.Check(request); err != nil {
		t.Fatal(err)
	}
	keys, response, err := responder.Respond(ctx, from, request)
	if c.Error != nil {
		if !errors.Is(err, msl.Code(c.Error.InternalCode-100000)) {
			t.Errorf("%v, want %d", err, c.Error.InternalCode)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Release()
	want := rawFingerprint(t, c.SessionKeys.Encryption, c.SessionKeys.HMAC)
	scheme, mechanism, _ := strings.Cut(c.Name, " ")
	if drawn := scheme != "DIFFIE_HELLMAN" && scheme != "SYMMETRIC_WRAPPED" && mechanism != rsaMechanism; drawn && fingerprint(t, keys) != want {
		t.Error("we draw other session keys")
	}
	if strings.HasSuffix(scheme, "LADDER") {
		sameLadder(t, scheme, response, keydata(t, c.Response.B64))
	}
	for _, r := range [][]byte{keydata(t, c.Response.B64), response} {
		if bytes.Equal(r, response) {
			_, requester = v.sides(t, c)
			want = fingerprint(t, keys)
		}
		offer, err := requester.Offer(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		defer offer.Close()
		sameObject(t, "request", offer.KeyData(), request)
		outcome, err := offer.Accept(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		if fingerprint(t, outcome.Keys) != want {
			t.Error("other session keys")
		}
		resumed, err := requester.Resume(ctx, outcome.Keep)
		if err != nil || fingerprint(t, resumed) != want {
			t.Errorf("resume: %v", err)
		}
	}
}

// sameLadder compares with the recorded data, bit for bit where the order of members
// allows it.
func sameLadder(t *testing.T, scheme string, got, want []byte) {
	t.Helper()
	for _, name := range []string{"wrapdata", "wrapkey", "encryptionkey", "hmackey"} {
		a, err := bytesOf(got, name)
		b, err2 := bytesOf(want, name)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s %s differs", scheme, name)
		}
	}
}
