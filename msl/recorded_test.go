package msl_test

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

const vectors = "../testdata/vectors"

// hexBytes is a JSON string of hexadecimal digits.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// An encoding is recorded bytes.
type encoding struct {
	Bytes []byte `json:"b64"`
}

// A verdict is the reference's result for an input.
type verdict struct {
	OK    json.RawMessage
	Error *struct {
		Error        string
		InternalCode int
		ResponseCode int
		MessageID    *int64
	}
}

func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// The keys of the recorded network.
var (
	issuerKeys  = rawKeys{"server1", unhex("1d58f3b8f747d16ab1093c4ca624eacf"), unhex("d7aebfd5879bb0e0ad016a4cf3cb3982f5ba260da520245bb42275bd7947370c")}
	serviceKeys = rawKeys{"st_default1", unhex("000102030405060708090a0b0c0d0e0f"), unhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")}
	pskClient1  = rawKeys{"client1", unhex("dbd68ac676bfba6641ca6a4c771053ac"), unhex("93edd1ddb772cfce217931265dbdb39c2bcdeeae1ba45d7972a1ba354e9a38c9")}
	pskClient2  = rawKeys{"client2", unhex("f7423308b047710a6ca3b66a8ad662bc"), unhex("161b5f41b2e006c6290eb15213f2a65747e698be2228b773f2c301230fdd70df")}
	sessionRaw  = rawKeys{"client1_1", unhex("a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"), unhex("b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecf")}
)

// wrappingKey derives the wrapping key of a pre-shared key set.
func (k rawKeys) wrappingKey() []byte {
	step := func(key, data []byte) []byte {
		h := hmac.New(sha256.New, key)
		h.Write(data)
		return h.Sum(nil)
	}
	secret := append(append([]byte{}, k.encryption...), k.mac...)
	return step(step(unhex("027617984f6227539a630b897c017d69"), secret), unhex("809f82a7addf548d3ea9dd067ff9bb91"))[:16]
}

// keyPair reads a recorded private key.
func keyPair(t testing.TB, name string) crypto.Signer {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(readFile(t, "keys/"+name+".pkcs8.der"))
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer)
}

func publicKey(t testing.TB, name string) crypto.PublicKey {
	t.Helper()
	key, err := x509.ParsePKIXPublicKey(readFile(t, "keys/"+name+".spki.der"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certificate(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(readFile(t, "keys/"+name+".crt.der"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// provisionRaw gives a store a key of known bytes.
func provisionRaw(t testing.TB, s *soft.Store, label string, a keystore.Algorithm, raw []byte) keystore.Key {
	t.Helper()
	v, err := s.Provision(label, a, raw)
	if err != nil {
		t.Fatal(err)
	}
	return v.Key
}

func provisionPair(t testing.TB, s *soft.Store, label string, a keystore.Algorithm, key crypto.Signer) keystore.Key {
	t.Helper()
	v, err := s.ProvisionKeyPair(label, a, key)
	if err != nil {
		t.Fatal(err)
	}
	return v.Key
}

func newStore(t testing.TB) *soft.Store {
	s := soft.New()
	t.Cleanup(func() { s.Close() })
	return s
}

// symmetric puts raw keys into a store.
func symmetric(t testing.TB, s *soft.Store, k rawKeys) msl.SymmetricKey {
	t.Helper()
	return msl.SymmetricKey{KeyID: k.id,
		Encryption: provisionRaw(t, s, k.id+"-encryption", keystore.AES128CBC, k.encryption).(keystore.Cipher),
		MAC:        provisionRaw(t, s, k.id+"-mac", keystore.HMACSHA256, k.mac).(keystore.MAC)}
}

// A recorded network is a server with the recorded keys.
type recorded struct {
	t         testing.TB
	store     *soft.Store
	server    *msl.Server
	state     *testState
	directory directory
	serverKey serverPublic
	mu        sync.Mutex
	now       time.Time
}

// fixedTime is the clock of the recorded specification vectors.
var fixedTime = time.Unix(1700000000, 0)

// A testState returns what the test sets.
type testState struct {
	msl.MemoryState
	anyID   bool // accept every non-replayable id
	revoked map[string]error
}

func (s *testState) AcceptID(ctx context.Context, identity string, serial, id int64) error {
	if s.anyID {
		return nil
	}
	return s.MemoryState.AcceptID(ctx, identity, serial, id)
}

func (s *testState) Revoked(_ context.Context, identity, user string) error {
	if err := s.revoked[identity]; err != nil {
		return err
	}
	return s.revoked[user]
}

func (r *recorded) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *recorded) setClock(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = now
}

func (r *recorded) public() serverPublic { return r.serverKey }

func newRecorded(t testing.TB) *recorded {
	t.Helper()
	r := &recorded{t: t, store: newStore(t), state: &testState{revoked: map[string]error{}}, directory: directory{}, now: fixedTime}
	r.serverKey = serverPublic{publicKey(t, "server1_rsa2048").(*rsa.PublicKey)}
	r.addEntities()
	psk := &entityauth.PSK{Directory: r.directory, Store: r.store}
	issuer := symmetric(t, r.store, issuerKeys)
	service := symmetric(t, r.store, serviceKeys)
	roots := x509.NewCertPool()
	roots.AddCert(certificate(t, "ca"))
	valid := certificate(t, "client7").NotBefore.Add(time.Hour) // the certificates are younger than the messages
	r.server = &msl.Server{
		Name: "server1",
		Local: &entityauth.RSAEntity{Identity: "server1", KeyID: "rsakeyid1",
			Key: provisionPair(t, r.store, "server1", keystore.RSASign2048, keyPair(t, "server1_rsa2048")).(crypto.Signer)},
		Peers: []msl.EntityScheme{psk, &entityauth.RSA{Directory: r.directory}, &entityauth.None{Directory: r.directory},
			&entityauth.X509{Roots: roots, Directory: r.directory, Time: func() time.Time { return valid }}},
		Users:        []msl.UserScheme{&userauth.EmailPassword{Verify: verifyPassword}},
		KeyExchanges: []msl.Responder{&keyx.SymmetricResponder{Store: r.store, PSK: psk}, &keyx.AsymmetricWrapped{Store: r.store}},
		Issuer: &msl.Issuer{Name: "server1", Store: r.store, Shared: true, Time: r.clock,
			Keys: []msl.IssuerKeys{{Version: 1, Encryption: issuer.Encryption, MAC: issuer.MAC}}},
		State: r.state, Directory: r.directory,
		ServiceTokens: msl.ServiceTokenKeys{"": service},
		Capabilities:  &msl.Capabilities{Compression: []string{"GZIP", "LZW"}, Languages: []string{"en-US"}},
		Limits:        msl.Limits{ErrorsPerSecond: 1e9, ErrorsPerSource: 1e9},
	}
	t.Cleanup(func() { r.server.Close(); psk.Close() })
	return r
}

func verifyPassword(_ context.Context, email string, password []byte) (string, error) {
	known := map[string]string{"user1@foo.com": "user1pwd", "user2@foo.com": "user2pwd"}
	if want, ok := known[email]; !ok || want != string(password) {
		return "", msl.ErrEmailPasswordIncorrect
	}
	return email, nil
}

func (r *recorded) addEntities() {
	r.addPSK("client1", pskClient1)
	r.addPSK("client2", pskClient2)
	r.directory["client3"] = &msl.Entity{Identity: "client3", Scheme: "NONE"}
	r.directory["client5"] = &msl.Entity{Identity: "client5", Scheme: "RSA", KeyID: "rsakeyclient5", PublicKey: publicKey(r.t, "client5_rsa2048")}
}

func (r *recorded) addPSK(identity string, k rawKeys) {
	r.t.Helper()
	seal := func(a keystore.Algorithm, use string, raw []byte) []byte {
		key, err := r.store.Import(a, raw)
		if err != nil {
			r.t.Fatal(err)
		}
		defer key.Close()
		blob, err := r.store.Seal(key, msl.PSKContext(use, identity))
		if err != nil {
			r.t.Fatal(err)
		}
		return blob
	}
	r.directory[identity] = &msl.Entity{Identity: identity, Scheme: "PSK", PSK: &msl.SealedPSK{
		Encryption: seal(keystore.AES128CBC, msl.PSKEncryption, k.encryption),
		MAC:        seal(keystore.HMACSHA256, msl.PSKMAC, k.mac),
		Wrapping:   seal(keystore.AESWrap128, msl.PSKWrapping, k.wrappingKey()),
	}}
}
