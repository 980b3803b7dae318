package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// A boundary is a server and a client, each on its own token. A test sees every byte
// that leaves or enters their process.
type boundary struct {
	t              *testing.T
	server, client *hsm.Store
	service        *msl.Server
	device         *msl.Client
	crossed        []func() [][]byte // by the tokens
	files          []string          // the state
	messages       [][]byte
	wrapping       []byte // the pre-shared wrapping key
	private        []byte // of the client's Diffie-Hellman
	group          keyx.DHGroup
	session        []byte // the current encryption key
	keys           [][]byte
	now            time.Time
}

func (b *boundary) clock() time.Time { return b.now }

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

type directory map[string]*msl.Entity

func (d directory) Entity(_ context.Context, identity string) (*msl.Entity, error) {
	if e, ok := d[identity]; ok {
		return e, nil
	}
	return nil, keystore.ErrNotFound
}

func made(t *testing.T, k keystore.Key, err error) keystore.Key {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (b *boundary) create(label string, a keystore.Algorithm) keystore.Key {
	b.t.Helper()
	v, err := b.server.Create(label, a)
	return made(b.t, v.Key, err)
}

// newBoundary sets everything up, and only then begins to record.
func newBoundary(t *testing.T, custody msl.Custody, dh bool) *boundary {
	t.Helper()
	b := &boundary{t: t, wrapping: random(16), private: random(80), now: time.Unix(1700000000, 0)}
	b.private[0] |= 0x80
	b.group, _ = keyx.FindDHGroup("ffdhe2048")
	b.server, _ = newStore(t)
	b.client, _ = newStore(t)
	entities := b.entities()
	psk := &entityauth.PSK{Directory: entities, Store: b.server}
	own := b.own()
	state := filepath.Join(t.TempDir(), "server")
	served, err := bolt.OpenServer(state)
	if err != nil {
		t.Fatal(err)
	}
	b.files = []string{state}
	signer := b.create("identity", keystore.RSASign2048).(crypto.Signer)
	b.service = &msl.Server{
		Name: "server", Custody: custody, State: served,
		Local:        &entityauth.RSAEntity{Identity: "server", KeyID: "key", Key: signer},
		Peers:        []msl.EntityScheme{psk},
		KeyExchanges: []msl.Responder{&keyx.SymmetricResponder{Store: b.server, PSK: psk}},
		Issuer: &msl.Issuer{Name: "issuer", Store: b.server, Time: b.clock, Shared: custody == msl.CustodyShared, Keys: []msl.IssuerKeys{{
			Version: 1, Encryption: b.create("issuer-encryption", keystore.AES128CBC).(keystore.Cipher), MAC: b.create("issuer-mac", keystore.HMACSHA256).(keystore.MAC)}}},
		ServiceTokens: msl.ServiceTokenKeys{"": msl.SymmetricKey{KeyID: "st", Encryption: b.create("st-encryption", keystore.AES128CBC).(keystore.Cipher), MAC: b.create("st-mac", keystore.HMACSHA256).(keystore.MAC)}},
	}
	b.device = b.newClient(own, custody, dh, signer.Public())
	if dh {
		b.service.KeyExchanges = []msl.Responder{&keyx.DiffieHellman{Store: b.server, Groups: []keyx.DHGroup{b.group}}}
	}
	t.Cleanup(func() {
		if err := errors.Join(b.device.Close(), b.device.State.(io.Closer).Close(), b.service.Close(), psk.Close(), served.Close()); err != nil {
			t.Error(err)
		}
	})
	b.crossed = []func() [][]byte{b.server.Record(), b.client.Record()}
	return b
}

// entities registers the client.
func (b *boundary) entities() directory {
	b.t.Helper()
	seal := func(use string, a keystore.Algorithm, raw []byte) []byte {
		k, err := b.server.Import(a, raw)
		if err != nil {
			b.t.Fatal(err)
		}
		defer k.Close()
		blob, err := b.server.Seal(k, msl.PSKContext(use, "client"))
		if err != nil {
			b.t.Fatal(err)
		}
		return blob
	}
	return directory{"client": {Identity: "client", Scheme: "PSK", PSK: &msl.SealedPSK{
		Encryption: seal(msl.PSKEncryption, keystore.AES128CBC, make([]byte, 16)),
		MAC:        seal(msl.PSKMAC, keystore.HMACSHA256, make([]byte, 32)),
		Wrapping:   seal(msl.PSKWrapping, keystore.AESWrap128, b.wrapping),
	}}}
}

// own provisions the client's keys.
func (b *boundary) own() *entityauth.PSKEntity {
	provision := func(label string, a keystore.Algorithm, raw []byte) keystore.Key {
		v, err := b.client.Provision(label, a, raw)
		return made(b.t, v.Key, err)
	}
	return &entityauth.PSKEntity{Identity: "client", Keys: entityauth.NewKeySet(
		provision("psk-encryption", keystore.AES128CBC, make([]byte, 16)).(keystore.Cipher),
		provision("psk-mac", keystore.HMACSHA256, make([]byte, 32)).(keystore.MAC),
		provision("psk-wrapping", keystore.AESUnwrap128, b.wrapping))}
}

func (b *boundary) newClient(own *entityauth.PSKEntity, custody msl.Custody, dh bool, server crypto.PublicKey) *msl.Client {
	path := filepath.Join(b.t.TempDir(), "client")
	state, err := bolt.OpenClient(path, "client")
	if err != nil {
		b.t.Fatal(err)
	}
	b.files = append(b.files, path)
	c := &msl.Client{
		Local: own, Custody: custody, Transport: b, Time: b.clock, State: state,
		Peers:        []msl.EntityScheme{&entityauth.RSA{Directory: directory{"server": {Identity: "server", Scheme: "RSA", KeyID: "key", PublicKey: server}}}},
		KeyExchanges: []msl.Offerer{&keyx.SymmetricOfferer{Keys: own.Keys}},
	}
	if dh {
		c.KeyExchanges = []msl.Offerer{&keyx.DiffieHellman{Store: b.client, Groups: []keyx.DHGroup{b.group}, Rand: endless(b.private)}}
	}
	return c
}

// endless always draws the same bytes.
type endless []byte

func (e endless) Read(p []byte) (int, error) { return copy(p, e), nil }

// RoundTrip carries a message, keeps it, and finds the session keys in it.
func (b *boundary) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	var request, answer bytes.Buffer
	if err := write(&request); err != nil {
		return nil, err
	}
	b.messages = append(b.messages, bytes.Clone(request.Bytes()))
	err := b.service.Serve(ctx, "test", &request, &answer, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		w.SetServiceToken("name", []byte("data"), msl.BindEntity)
		_, err := io.Copy(w, m.Body)
		return err
	})
	b.messages = append(b.messages, bytes.Clone(answer.Bytes()))
	b.learn(answer.Bytes())
	return io.NopCloser(&answer), err
}

// learn completes the key exchange of an answer with the test's knowledge of the keys.
func (b *boundary) learn(answer []byte) {
	b.t.Helper()
	var outer struct {
		MasterToken *json.RawMessage
		HeaderData  []byte
	}
	var h struct {
		KeyResponseData *struct {
			KeyData struct{ EncryptionKey, HMACKey, PublicKey []byte }
		}
	}
	if err := json.NewDecoder(bytes.NewReader(answer)).Decode(&outer); err != nil {
		b.t.Fatal(err)
	}
	inside := outer.HeaderData
	if outer.MasterToken != nil {
		inside = decryptEnvelope(b.t, b.session, inside)
	}
	if err := json.Unmarshal(inside, &h); err != nil {
		b.t.Fatal(err)
	}
	if h.KeyResponseData == nil {
		return
	}
	encryption, mac := b.unwrapped(h.KeyResponseData.KeyData.EncryptionKey), b.unwrapped(h.KeyResponseData.KeyData.HMACKey)
	if public := h.KeyResponseData.KeyData.PublicKey; public != nil {
		z := new(big.Int).Exp(new(big.Int).SetBytes(public), new(big.Int).SetBytes(b.private), b.group.P)
		sum := sha512.Sum384(append([]byte{0}, z.Bytes()...))
		encryption, mac = sum[:16], sum[16:]
	}
	b.session, b.keys = encryption, append(b.keys, encryption, mac)
}

// unwrapped opens a key under the pre-shared wrapping key.
func (b *boundary) unwrapped(wrapped []byte) []byte {
	if wrapped == nil {
		return nil
	}
	s := soft.New()
	defer s.Close()
	k, err := s.Import(keystore.AESReveal128, b.wrapping)
	r := made(b.t, k, err).(keystore.Revealer)
	raw, err := r.Reveal(wrapped)
	if err != nil {
		b.t.Fatal(err)
	}
	return raw
}

func decryptEnvelope(t *testing.T, key, envelope []byte) []byte {
	t.Helper()
	var e struct{ IV, Ciphertext []byte }
	if err := json.Unmarshal(envelope, &e); err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	cipher.NewCBCDecrypter(block, e.IV).CryptBlocks(e.Ciphertext, e.Ciphertext)
	return e.Ciphertext[:len(e.Ciphertext)-int(e.Ciphertext[len(e.Ciphertext)-1])]
}

// talk goes through a session: two exchanges, and restarts of the server and the client.
func (b *boundary) talk() {
	b.t.Helper()
	ask := func(c *msl.Client) {
		b.t.Helper()
		r, err := c.Do(context.Background(), &msl.Request{Encrypted: true, NonReplayable: true, Body: msl.BytesBody([]byte("hello"))})
		if err != nil {
			b.t.Fatal(err)
		}
		data, err := io.ReadAll(r.Body)
		if err := errors.Join(err, r.Body.Close()); err != nil || string(data) != "hello" {
			b.t.Fatalf("%q, %v", data, err)
		}
	}
	ask(b.device)
	b.service.Close() // the server loses its open keys
	ask(b.device)
	b.now = b.now.Add(2 * time.Hour)
	ask(b.device)
	b.device.Close()
	ask(b.device) // with its stored state
	if len(b.keys) != 4 {
		b.t.Fatalf("%d session keys", len(b.keys))
	}
}

// base64Text matches text that may be Base64 or base64url.
var base64Text = regexp.MustCompile(`[A-Za-z0-9+/_-]{16,}={0,2}`)

// holds reports whether b holds a key, in clear or in Base64 however deep.
func holds(b []byte, keys [][]byte, depth int) bool {
	for _, k := range keys {
		if bytes.Contains(b, k) {
			return true
		}
	}
	if depth == 0 {
		return false
	}
	for _, text := range base64Text.FindAll(b, -1) {
		text = bytes.TrimRight(text, "=")
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			inside, err := e.DecodeString(string(text))
			if err == nil && holds(inside, keys, depth-1) {
				return true
			}
		}
	}
	return false
}

func (b *boundary) found(all [][]byte) bool {
	for _, one := range all {
		if holds(one, b.keys, 6) {
			return true
		}
	}
	return false
}

// TestBoundary looks for session keys at the boundary in every mode. The modes other than
// sealed show that it would find them.
func TestBoundary(t *testing.T) {
	for _, c := range []struct {
		name           string
		custody        msl.Custody
		dh             bool
		server, client bool // crosses to the token of that side
	}{
		{"sealed", msl.CustodySealed, false, false, false},
		{"imported without need", msl.CustodyImported, false, false, false},
		{"imported", msl.CustodyImported, true, true, true},
		{"shared", msl.CustodyShared, false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBoundary(t, c.custody, c.dh)
			b.talk()
			for i, want := range []bool{c.server, c.client} {
				crossed := b.crossed[i]()
				if len(crossed) < 20 {
					t.Errorf("token %d: only %d buffers were seen", i, len(crossed))
				}
				if got := b.found(crossed); got != want {
					t.Errorf("token %d: session keys cross the interface: %v, want %v", i, got, want)
				}
			}
			if len(b.messages) < 8 || b.found(b.messages) {
				t.Errorf("session keys are in one of %d messages", len(b.messages))
			}
			for _, path := range b.files {
				data, err := os.ReadFile(path)
				if err != nil || len(data) == 0 || b.found([][]byte{data}) {
					t.Errorf("session keys are in the state %s of %d bytes: %v", filepath.Base(path), len(data), err)
				}
			}
			b.checkTokens(c.custody)
		})
	}
}

// checkTokens looks into the tokens with the keys of their issuer.
func (b *boundary) checkTokens(custody msl.Custody) {
	b.t.Helper()
	record, err := b.device.State.Load(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	var token struct{ TokenData []byte }
	var inner struct{ SessionData []byte }
	var e struct{ IV, Ciphertext []byte }
	if err := errors.Join(json.Unmarshal(record.MasterToken, &token), json.Unmarshal(token.TokenData, &inner), json.Unmarshal(inner.SessionData, &e)); err != nil {
		b.t.Fatal(err)
	}
	content, err := b.service.Issuer.Keys[0].Encryption.Decrypt(e.IV, e.Ciphertext)
	if err != nil {
		b.t.Fatal(err)
	}
	if got := b.found([][]byte{content}); got != (custody == msl.CustodyShared) {
		b.t.Errorf("session keys are in the token: %v", got)
	}
}
