package msl_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

func (n *network) add(s msl.EntityScheme) { n.server.Peers = append(n.server.Peers, s) }

// device is a store of one client.
func (n *network) device() *soft.Store {
	s := soft.New()
	n.t.Cleanup(func() { s.Close() })
	return s
}

func (n *network) eccEntity(curve keystore.Algorithm) msl.LocalEntity {
	key := provision(n.t, n.device(), "identity", curve).(crypto.Signer)
	n.directory["ecc"] = &msl.Entity{Identity: "ecc", Scheme: "ECC", KeyID: "k", PublicKey: key.Public()}
	n.add(&entityauth.ECC{Directory: n.directory})
	return &entityauth.ECCEntity{Identity: "ecc", KeyID: "k", Key: key}
}

// x509Entity has an EC certificate of a root that is its own.
func (n *network) x509Entity() msl.LocalEntity {
	device := n.device()
	ca := provision(n.t, device, "ca", keystore.ECDSAP384).(crypto.Signer)
	key := provision(n.t, device, "identity", keystore.ECDSAP256).(crypto.Signer)
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: n.now, NotAfter: n.now.Add(time.Hour)}
	}
	root := template("root")
	root.IsCA, root.BasicConstraintsValid = true, true
	root = signCertificate(n.t, root, root, ca.Public(), ca)
	roots := x509.NewCertPool()
	roots.AddCert(root)
	n.add(&entityauth.X509{Roots: roots, Time: n.clock})
	return &entityauth.X509Entity{Certificate: signCertificate(n.t, template("device"), root, key.Public(), ca), Key: key}
}

func signCertificate(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(nil, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (n *network) profileEntity() msl.LocalEntity {
	own := n.pskEntity("set")
	n.directory["set"].Scheme = "PSK_PROFILE"
	n.add(&entityauth.PSKProfile{KeySets: n.psk})
	return &entityauth.PSKProfileEntity{KeyID: "set", Profile: "p", Keys: own.Keys}
}

func (n *network) mgkEntity() msl.LocalEntity {
	group := provision(n.t, n.store.(keystore.Admin), "group", keystore.AES128CBC).(keystore.Cipher)
	scheme := &entityauth.MGK{Importer: n.store.(keystore.Importer), Group: func(context.Context, string) (entityauth.ModelGroup, error) {
		return entityauth.ModelGroup{Name: "m", Key: group}, nil
	}}
	n.t.Cleanup(func() { scheme.Close() })
	n.add(scheme)
	raw, err := entityauth.DeriveGroupKeys(group, "MODEL-1")
	if err != nil {
		n.t.Fatal(err)
	}
	device := n.device()
	return &entityauth.MGKEntity{Identity: "MODEL-1", Keys: entityauth.NewKeySet(
		provisionRaw(n.t, device, "e", keystore.AES128CBC, raw[:16]).(keystore.Cipher),
		provisionRaw(n.t, device, "m", keystore.HMACSHA256, raw[16:]).(keystore.MAC), nil)}
}

func (n *network) provisionedEntity() msl.LocalEntity {
	var count atomic.Int64
	n.add(&entityauth.Provisioned{Assign: func(context.Context) (string, error) {
		return fmt.Sprintf("new%d", count.Add(1)), nil
	}})
	return &entityauth.ProvisionedEntity{}
}

// hiddenEntity hides own with the master token of another client.
func (n *network) hiddenEntity(own msl.LocalEntity) msl.LocalEntity {
	n.t.Helper()
	n.add(&entityauth.MTProtected{Tokens: n.server.OpenMasterToken, Inner: n.server.Peers, Directory: n.directory})
	other := n.pskClient("other")
	if held, err := other.HeldTokens(context.Background(), ""); err != nil || held != (msl.HeldTokens{}) {
		n.t.Fatalf("a new client holds %+v, %v", held, err)
	}
	if _, _, err := send(n.t, other, &msl.Request{RequestTokens: true, Body: msl.BytesBody([]byte("x"))}); err != nil {
		n.t.Fatal(err)
	}
	held, err := other.HeldTokens(context.Background(), "")
	if err != nil || held.MasterToken == nil || held.Keys == nil || held.UserIDToken != nil {
		n.t.Fatalf("client holds %+v, %v", held, err)
	}
	n.t.Cleanup(held.Keys.Release)
	return &entityauth.MTProtectedEntity{Hidden: own, Token: held.MasterToken, Keys: held.Keys}
}

// Every scheme gets a session, in which a user is authenticated.
func TestNetworkEntitySchemes(t *testing.T) {
	skipWithRace(t)
	none := func(n *network) msl.LocalEntity {
		n.directory["plain"] = &msl.Entity{Identity: "plain", Scheme: "NONE"}
		return &entityauth.NoneEntity{Identity: "plain"}
	}
	for _, c := range []struct {
		name, identity string
		entity         func(*network) msl.LocalEntity
	}{
		{"ECC P-256", "ecc", func(n *network) msl.LocalEntity { return n.eccEntity(keystore.ECDSAP256) }},
		{"ECC P-384", "ecc", func(n *network) msl.LocalEntity { return n.eccEntity(keystore.ECDSAP384) }},
		{"X509 EC", "CN=device", (*network).x509Entity},
		{"PSK_PROFILE", "set-p", (*network).profileEntity},
		{"MGK", "MODEL-1", (*network).mgkEntity},
		{"NONE_SUFFIXED", "root.1", func(n *network) msl.LocalEntity {
			n.directory["root"] = &msl.Entity{Identity: "root", Scheme: "NONE_SUFFIXED"}
			n.add(&entityauth.NoneSuffixed{Directory: n.directory})
			return &entityauth.NoneSuffixedEntity{Root: "root", Suffix: "1"}
		}},
		{"PROVISIONED", "new1", (*network).provisionedEntity},
		{"MT_PROTECTED NONE", "plain", func(n *network) msl.LocalEntity { return n.hiddenEntity(none(n)) }},
		{"MT_PROTECTED ECC", "ecc", func(n *network) msl.LocalEntity { return n.hiddenEntity(n.eccEntity(keystore.ECDSAP256)) }},
		{"MT_PROTECTED PROVISIONED", "new1", func(n *network) msl.LocalEntity { return n.hiddenEntity(n.provisionedEntity()) }},
		{"MT_PROTECTED PSK", "hidden", func(n *network) msl.LocalEntity { return n.hiddenEntity(n.pskEntity("hidden")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t, soft.New())
			entity := c.entity(n)
			client := n.client(entity, wrappedWith(n.t, n.device()))
			n.checkSession(t, client, c.identity)
			n.checkPlain(t, n.client(entity), entity)
		})
	}
}

// checkSession sends messages that need a master token and a user.
func (n *network) checkSession(t *testing.T, client *msl.Client, identity string) {
	t.Helper()
	n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if m.Identity != identity || m.User != "user@example.com" || !m.Encrypted || !m.Authenticated || !m.NonReplayable || m.Scheme != "" {
			t.Errorf("message %+v", m)
		}
		return echo(t.Context(), w, m)
	}
	for range 2 {
		_, got, err := send(t, client, &msl.Request{Encrypted: true, Authenticated: true, NonReplayable: true,
			User: "user@example.com", RequestTokens: true, Body: msl.BytesBody([]byte("hello"))})
		if err != nil || got != "hello" {
			t.Errorf("answer %q, %v", got, err)
		}
	}
}

// checkPlain sends a message that needs no more than the scheme gives.
func (n *network) checkPlain(t *testing.T, client *msl.Client, entity msl.LocalEntity) {
	t.Helper()
	n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if m.Encrypted != entity.Encrypts() || m.Authenticated != entity.Authenticates() || m.Scheme != entity.Scheme() {
			t.Errorf("message %+v", m)
		}
		w.Encrypted = false // the server's entity only signs
		return echo(t.Context(), w, m)
	}
	_, got, err := send(t, client, &msl.Request{Body: msl.BytesBody([]byte("plain"))})
	if err != nil || got != "plain" {
		t.Errorf("answer %q, %v", got, err)
	}
}

// A pre-shared key that is hidden still unwraps session keys, and stays hidden.
func TestNetworkHiddenPSK(t *testing.T) {
	n := newNetwork(t, soft.New())
	own := n.pskEntity("hidden")
	client := n.client(n.hiddenEntity(own), &keyx.SymmetricOfferer{Keys: own.Keys})
	var answers bytes.Buffer
	client.Transport = transportFunc(func(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
		answer, err := n.RoundTrip(ctx, write)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(io.TeeReader(answer, &answers)), nil
	})
	n.checkSession(t, client, "hidden")
	// The server's entity only signs, so what it writes is for all to read.
	var head struct{ HeaderData []byte }
	if err := json.NewDecoder(&answers).Decode(&head); err != nil || !bytes.Contains(head.HeaderData, []byte("keyresponsedata")) {
		t.Fatalf("%s: %v", head.HeaderData, err)
	}
	if bytes.Contains(head.HeaderData, []byte(`"hidden"`)) {
		t.Errorf("the answer names its recipient: %s", head.HeaderData)
	}
}

// A bearerScheme is an application's own user scheme.
type bearerScheme struct{}

func (bearerScheme) Scheme() string { return "EXAMPLE_BEARER" }

func (bearerScheme) Check(authdata []byte) error {
	var data struct{ Token *string }
	if json.Unmarshal(authdata, &data) != nil || data.Token == nil {
		return msl.Failure(msl.ErrMSLParseError, "bearer token", nil)
	}
	return nil
}

func (bearerScheme) Authenticate(_ context.Context, identity string, authdata []byte) (string, error) {
	if string(authdata) != `{"token":"good for `+identity+`"}` {
		return "", msl.ErrUserAuthVerificationFailed
	}
	return "bearer", nil
}

// An application's own user scheme needs no registration but in Users.
func TestNetworkOwnUserScheme(t *testing.T) {
	n := newNetwork(t, soft.New())
	n.server.Users = append(n.server.Users, bearerScheme{})
	n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		_, err := io.WriteString(w, m.User)
		return err
	}
	for token, want := range map[string]error{"good for device": nil, "bad": msl.ErrUserAuthVerificationFailed} {
		client := n.pskClient("device")
		client.UserAuth = func(_ context.Context, _ string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
			if reason != 0 {
				return nil, nil
			}
			return &msl.UserAuthData{Scheme: "EXAMPLE_BEARER", AuthData: encode(object{"token": token})}, nil
		}
		_, got, err := send(t, client, &msl.Request{User: "me", RequestTokens: true, Body: msl.BytesBody([]byte("x"))})
		if !errors.Is(err, want) || err == nil && got != "bearer" {
			t.Errorf("%s: %q, %v", token, got, err)
		}
	}
}

// A device keeps its users when it starts a new session: the tokens of the old
// one prove them.
func TestNetworkUserIDToken(t *testing.T) {
	n := newNetwork(t, soft.New())
	n.server.Users = append(n.server.Users, &userauth.UserIDToken{Issuer: n.server.Issuer, Tokens: n.server.OpenMasterToken, Revoked: n.state.Revoked})
	psk := n.pskEntity("device")
	old := n.client(psk, &keyx.SymmetricOfferer{Keys: psk.Keys})
	request := &msl.Request{User: "user@example.com", RequestTokens: true, Body: msl.BytesBody([]byte("x"))}
	if _, _, err := send(t, old, request); err != nil {
		t.Fatal(err)
	}
	held, err := old.HeldTokens(context.Background(), "user@example.com")
	if err != nil || held.UserIDToken == nil {
		t.Fatalf("%+v, %v", held, err)
	}
	defer held.Keys.Release()
	proof := userauth.UserIDTokenData(held.MasterToken.Bytes(), held.UserIDToken.Bytes())
	fresh := func(entity *entityauth.PSKEntity) *msl.Client {
		c := n.client(entity, &keyx.SymmetricOfferer{Keys: entity.Keys})
		c.UserAuth = func(_ context.Context, _ string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
			if reason != 0 {
				return nil, nil
			}
			return proof, nil
		}
		return c
	}
	n.checkSession(t, fresh(psk), "device")
	n.handler = echo
	if _, _, err := send(t, fresh(n.pskEntity("thief")), request); !errors.Is(err, msl.ErrUserAuthEntityMismatch) {
		t.Errorf("another entity: %v", err)
	}
	n.directory["device"].UserSchemes = []string{"EMAIL_PASSWORD"}
	if _, _, err := send(t, fresh(psk), request); !errors.Is(err, msl.ErrUserAuthEntityIncorrectData) {
		t.Errorf("a scheme that is not permitted: %v", err)
	}
}
