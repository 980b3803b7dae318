package msl_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
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

// A network is one server and what its clients need to talk to it, in memory.
type network struct {
	t         testing.TB
	store     keystore.Store
	server    *msl.Server
	state     *msl.MemoryState
	psk       *entityauth.PSK
	directory directory
	handler   msl.Handler
	serverKey crypto.PublicKey
	entity    msl.LocalEntity // the server's own
	now       time.Time
	intercept func(message []byte) []byte // may change what reaches the server
}

type directory map[string]*msl.Entity

func (d directory) Entity(_ context.Context, identity string) (*msl.Entity, error) {
	if e, ok := d[identity]; ok {
		return e, nil
	}
	return nil, keystore.ErrNotFound
}

// identities are the RSA keys of testdata/identities.pem, which the tests share, since
// making one takes longer than most tests.
var identities struct {
	mu   sync.Mutex
	keys []*rsa.PrivateKey
	next int
}

func nextIdentity(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	identities.mu.Lock()
	defer identities.mu.Unlock()
	if identities.keys == nil {
		for block, rest := pem.Decode(must(os.ReadFile("testdata/identities.pem"))); block != nil; block, rest = pem.Decode(rest) {
			identities.keys = append(identities.keys, must(x509.ParsePKCS8PrivateKey(block.Bytes)).(*rsa.PrivateKey))
		}
	}
	identities.next++
	return identities.keys[identities.next%len(identities.keys)]
}

func provision(t testing.TB, s keystore.Admin, label string, a keystore.Algorithm) keystore.Key {
	t.Helper()
	if a == keystore.RSASign2048 {
		switch device := s.(type) {
		case *soft.Store:
			return provisionPair(t, device, label, a, nextIdentity(t))
		case *faultyStore:
			return device.provisionPair(t, label, a, nextIdentity(t))
		}
	}
	v, err := s.Create(label, a)
	if err != nil {
		t.Fatal(err)
	}
	return v.Key
}

// newNetwork makes a server whose keys are in store.
func newNetwork(t testing.TB, store keystore.Store) *network {
	t.Helper()
	n := &network{t: t, store: store, state: &msl.MemoryState{}, directory: directory{}, now: time.Unix(1700000000, 0)}
	admin := store.(keystore.Admin)
	signer := provision(t, admin, "server", keystore.ECDSAP256).(crypto.Signer) // an RSA signature takes many times as long
	n.serverKey = signer.Public()
	n.entity = &entityauth.ECCEntity{Identity: "server", KeyID: "server-key", Key: signer}
	n.psk = &entityauth.PSK{Directory: n.directory, Store: store}
	n.server = &msl.Server{
		Name:  "server",
		Local: n.entity,
		Peers: []msl.EntityScheme{n.psk, &entityauth.RSA{Directory: n.directory}, &entityauth.None{Directory: n.directory}},
		Users: []msl.UserScheme{&userauth.EmailPassword{Verify: func(_ context.Context, email string, password []byte) (string, error) {
			if email != "user@example.com" || string(password) != "secret" {
				return "", msl.ErrEmailPasswordIncorrect
			}
			return email, nil
		}}},
		KeyExchanges: []msl.Responder{&keyx.SymmetricResponder{Store: store, PSK: n.psk}, &keyx.AsymmetricWrapped{Store: store}},
		Issuer: &msl.Issuer{
			Name: "issuer", Store: store, Time: n.clock,
			Keys: []msl.IssuerKeys{{
				Version:    1,
				Encryption: provision(t, admin, "issuer-encryption", keystore.AES128CBC).(keystore.Cipher),
				MAC:        provision(t, admin, "issuer-mac", keystore.HMACSHA256).(keystore.MAC),
			}},
		},
		State:         n.state,
		Directory:     n.directory,
		ServiceTokens: msl.ServiceTokenKeys{"": msl.SymmetricKey{KeyID: "st", Encryption: provision(t, admin, "st-encryption", keystore.AES128CBC).(keystore.Cipher), MAC: provision(t, admin, "st-mac", keystore.HMACSHA256).(keystore.MAC)}},
		Capabilities:  &msl.Capabilities{Compression: []string{"GZIP", "LZW"}, Languages: []string{"en"}},
		Limits:        msl.Limits{ErrorsPerSecond: 1e6, ErrorsPerSource: 1e6},
	}
	n.handler = echo
	t.Cleanup(func() { n.server.Close(); n.psk.Close() })
	return n
}

func (n *network) clock() time.Time { return n.now }

func echo(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	_, err := io.Copy(w, m.Body)
	return err
}

// RoundTrip carries a message in memory.
func (n *network) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	var request, answer bytes.Buffer
	if err := write(&request); err != nil {
		return nil, err
	}
	message := request.Bytes()
	if n.intercept != nil {
		message = n.intercept(message)
	}
	if err := n.server.Serve(ctx, "test", bytes.NewReader(message), &answer, n.handler); err != nil {
		return nil, err
	}
	return io.NopCloser(&answer), nil
}

// client makes a client of entity, whose keys are in a store of its own.
func (n *network) client(entity msl.LocalEntity, exchanges ...msl.Offerer) *msl.Client {
	c := &msl.Client{
		Local: entity, KeyExchanges: exchanges, Transport: n, Time: n.clock,
		Peers:        []msl.EntityScheme{&entityauth.ECC{Directory: directory{"server": {Identity: "server", Scheme: "ECC", KeyID: "server-key", PublicKey: n.serverKey}}}},
		Capabilities: &msl.Capabilities{Compression: []string{"GZIP", "LZW"}, Languages: []string{"en"}},
		UserAuth: func(_ context.Context, user string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
			if reason != 0 {
				return nil, errors.New("no other password")
			}
			return userauth.EmailPasswordData(user, []byte("secret")), nil
		},
	}
	n.t.Cleanup(func() { c.Close() })
	return c
}

// pskEntity registers an entity with new pre-shared keys and returns its own
// side of them.
func (n *network) pskEntity(identity string) *entityauth.PSKEntity {
	n.t.Helper()
	raw := map[string][]byte{msl.PSKEncryption: random(16), msl.PSKMAC: random(32), msl.PSKWrapping: random(16)}
	algorithms := map[string]keystore.Algorithm{msl.PSKEncryption: keystore.AES128CBC, msl.PSKMAC: keystore.HMACSHA256, msl.PSKWrapping: keystore.AESWrap128}
	sealed := map[string][]byte{}
	for use, bytes := range raw {
		k, err := n.store.(keystore.Importer).Import(algorithms[use], bytes)
		if err == nil {
			sealed[use], err = n.store.Seal(k, msl.PSKContext(use, identity))
			k.Close()
		}
		if err != nil {
			n.t.Fatal(err)
		}
	}
	n.directory[identity] = &msl.Entity{Identity: identity, Scheme: "PSK", PSK: &msl.SealedPSK{
		Encryption: sealed[msl.PSKEncryption], MAC: sealed[msl.PSKMAC], Wrapping: sealed[msl.PSKWrapping]}}
	device := soft.New()
	n.t.Cleanup(func() { device.Close() })
	own := func(use string, a keystore.Algorithm) keystore.Key {
		v, err := device.Provision(use, a, raw[use])
		if err != nil {
			n.t.Fatal(err)
		}
		return v.Key
	}
	keys := entityauth.NewKeySet(own(msl.PSKEncryption, keystore.AES128CBC).(keystore.Cipher),
		own(msl.PSKMAC, keystore.HMACSHA256).(keystore.MAC), own(msl.PSKWrapping, keystore.AESUnwrap128))
	return &entityauth.PSKEntity{Identity: identity, Keys: keys}
}

func (n *network) pskClient(identity string) *msl.Client {
	n.t.Helper()
	psk := n.pskEntity(identity)
	return n.client(psk, &keyx.SymmetricOfferer{Keys: psk.Keys})
}

func (n *network) rsaClient(identity string) *msl.Client {
	n.t.Helper()
	device := soft.New()
	n.t.Cleanup(func() { device.Close() })
	key := provision(n.t, device, "identity", keystore.RSASign2048).(crypto.Signer)
	n.directory[identity] = &msl.Entity{Identity: identity, Scheme: "RSA", KeyID: identity + "-key", PublicKey: key.Public().(*rsa.PublicKey)}
	return n.client(&entityauth.RSAEntity{Identity: identity, KeyID: identity + "-key", Key: key}, wrappedWith(n.t, device))
}

// wrappedWith offers a key pair that all tests share, for the same reason as identities.
func wrappedWith(t testing.TB, device *soft.Store) *keyx.AsymmetricWrapped {
	t.Helper()
	pair := provisionPair(t, device, "wrapping", keystore.RSAUnwrap2048, keyPair(t, "awe_rsa2048"))
	return &keyx.AsymmetricWrapped{Store: device, KeyPair: pair.(keyx.UnwrappingPair)}
}

func (n *network) noneClient(identity string) *msl.Client {
	n.directory[identity] = &msl.Entity{Identity: identity, Scheme: "NONE"}
	device := soft.New()
	n.t.Cleanup(func() { device.Close() })
	return n.client(&entityauth.NoneEntity{Identity: identity}, wrappedWith(n.t, device))
}

// send does a request and returns the answer's data.
func send(t testing.TB, c *msl.Client, req *msl.Request) (*msl.Response, string, error) {
	t.Helper()
	r, err := c.Do(context.Background(), req)
	if err != nil {
		return nil, "", err
	}
	data, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return r, string(data), nil
}
