package msl_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// A conforming is a network where every entity may use every key exchange.
type conforming struct {
	*network
	device   *soft.Store // of all entities
	entities map[string]msl.LocalEntity
	psk, set rawKeys // pre-shared keys, of an entity and of a profile
	jose     keyx.DecryptingPair
	rsa      keyx.UnwrappingPair
	peers    []msl.EntityScheme // who may answer, if it is not the network's server
}

const conformingUser = "user@example.com"

func newConforming(t testing.TB) *conforming {
	t.Helper()
	m := &conforming{network: softNetwork(t), device: newStore(t)}
	pair := keyPair(t, "awe_rsa2048")
	m.jose = provisionPair(t, m.device, "jose", keystore.RSADecrypt2048, pair).(keyx.DecryptingPair)
	m.rsa = provisionPair(t, m.device, "wrapped", keystore.RSAUnwrap2048, pair).(keyx.UnwrappingPair)
	m.addExchanges()
	m.addEntities()
	m.handler = tell
	return m
}

// tell answers with what the application sees of the message.
func tell(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	body, err := io.ReadAll(m.Body)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(sight{m.Identity, m.Scheme, m.User, m.Encrypted, m.Authenticated, m.NonReplayable, string(body)})
}

func (m *conforming) addEntities() {
	t, rsaKey, ecKey := m.t, keyPair(m.t, "client5_rsa2048"), keyPair(m.t, "client8_ec_p256")
	m.psk, m.set = m.registerKeys("psk", "PSK"), m.registerKeys("set", "PSK_PROFILE")
	m.directory["set-p"] = m.directory["set"] // as a directory that knows profiles says
	m.directory["rsa"] = &msl.Entity{Identity: "rsa", Scheme: "RSA", KeyID: "k", PublicKey: rsaKey.Public()}
	m.directory["none"] = &msl.Entity{Identity: "none", Scheme: "NONE"}
	m.directory["root"] = &msl.Entity{Identity: "root", Scheme: "NONE_SUFFIXED"}
	m.add(&entityauth.PSKProfile{KeySets: m.network.psk})
	m.add(&entityauth.NoneSuffixed{Directory: m.directory})
	m.add(&entityauth.Provisioned{Assign: func(context.Context) (string, error) { return "assigned", nil }})
	signer := provisionPair(t, m.device, "rsa", keystore.RSASign2048, rsaKey).(crypto.Signer)
	rsaCertificate, ecCertificate := m.certify("rsa device", rsaKey.Public(), "ec device", ecKey.Public())
	m.entities = map[string]msl.LocalEntity{
		"PSK":           &entityauth.PSKEntity{Identity: "psk", Keys: m.keySet(m.psk)},
		"PSK_PROFILE":   &entityauth.PSKProfileEntity{KeyID: "set", Profile: "p", Keys: m.keySet(m.set)},
		"MGK":           m.mgkEntity(),
		"RSA":           &entityauth.RSAEntity{Identity: "rsa", KeyID: "k", Key: signer},
		"ECC":           m.eccEntity(keystore.ECDSAP256),
		"X509 RSA":      &entityauth.X509Entity{Certificate: rsaCertificate, Key: signer},
		"X509 EC":       &entityauth.X509Entity{Certificate: ecCertificate, Key: provisionPair(t, m.device, "ec", keystore.ECDSAP256, ecKey).(crypto.Signer)},
		"NONE":          &entityauth.NoneEntity{Identity: "none"},
		"NONE_SUFFIXED": &entityauth.NoneSuffixedEntity{Root: "root", Suffix: "1"},
		"PROVISIONED":   &entityauth.ProvisionedEntity{},
	}
	hidden := m.hiddenEntity(m.entities["NONE"]).(*entityauth.MTProtectedEntity)
	for _, e := range plainEntities {
		m.entities["MT_PROTECTED "+e.name] = &entityauth.MTProtectedEntity{Hidden: m.entities[e.name], Token: hidden.Token, Keys: hidden.Keys}
	}
}

// registerKeys registers new pre-shared keys.
func (m *conforming) registerKeys(id, scheme string) rawKeys {
	k := rawKeys{id, random(16), random(32)}
	(&recorded{t: m.t, store: m.store.(*soft.Store), directory: m.directory}).addPSK(id, k)
	m.directory[id].Scheme = scheme
	return k
}

// keySet is an entity's own side of its pre-shared keys.
func (m *conforming) keySet(k rawKeys) *entityauth.KeySet {
	own := symmetric(m.t, m.device, k)
	return entityauth.NewKeySet(own.Encryption, own.MAC, provisionRaw(m.t, m.device, k.id+" unwrap", keystore.AESUnwrap128, k.wrappingKey()))
}

// certify makes certificates of two keys, and trusts their issuer.
func (m *conforming) certify(name1 string, key1 crypto.PublicKey, name2 string, key2 crypto.PublicKey) (a, b *x509.Certificate) {
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: m.now, NotAfter: m.now.Add(time.Hour)}
	}
	ca := provision(m.t, m.device, "ca", keystore.ECDSAP256).(crypto.Signer)
	root := template("root")
	root.IsCA, root.BasicConstraintsValid = true, true
	root = signCertificate(m.t, root, root, ca.Public(), ca)
	roots := x509.NewCertPool()
	roots.AddCert(root)
	m.add(&entityauth.X509{Roots: roots, Time: m.clock})
	return signCertificate(m.t, template(name1), root, key1, ca), signCertificate(m.t, template(name2), root, key2, ca)
}

func (m *conforming) addExchanges() {
	s := m.server
	s.Custody = msl.CustodyImported
	for _, mechanism := range joseMechanisms {
		s.KeyExchanges = append(s.KeyExchanges, &keyx.AsymmetricJOSE{Mechanism: mechanism, Store: m.store})
	}
	s.KeyExchanges = append(s.KeyExchanges, &keyx.DiffieHellman{Store: m.store, Groups: []keyx.DHGroup{recordedGroup()}, AllowSmallGroups: true})
	for _, form := range []keyx.LadderForm{keyx.JWELadder, keyx.JWKLadder} {
		s.KeyExchanges = append(s.KeyExchanges, &keyx.LadderResponder{Form: form, Store: m.store, PSK: m.network.psk})
	}
}

// offer returns the requester's side of a key exchange. An entity without a pre-shared
// wrapping key uses another entity's.
func (m *conforming) offer(c combination) msl.Offerer {
	raw := func(keydata object) msl.Offerer { return rawOffer{c.exchange.scheme, encode(keydata)} }
	name, last, _ := strings.Cut(c.exchange.name, " ")
	keys, own := m.psk, m.entities["PSK"].(*entityauth.PSKEntity).Keys
	if c.entity.identity == "set-p" {
		keys, own = m.set, m.entities["PSK_PROFILE"].(*entityauth.PSKProfileEntity).Keys
	}
	switch {
	case last == "unknown" && name == "SYMMETRIC_WRAPPED", last == "SESSION":
		return raw(object{"keyid": last})
	case name == "ECC":
		return raw(object{"keypairid": "k", "mechanism": "ECC", "publickey": []byte("x")})
	case last == "unknown":
		return raw(object{"parametersid": "unknown", "publickey": []byte{0, 5}})
	case last == "WRAP unknown", last == "WRAP" && !c.entity.wrapping:
		return raw(object{"mechanism": "WRAP", "wrapdata": random(24)})
	case name == "AUTHENTICATED_DH":
		return raw(object{})
	case name == "SYMMETRIC_WRAPPED":
		return &keyx.SymmetricOfferer{Keys: own}
	case name == "RSA":
		return &keyx.AsymmetricWrapped{Store: m.device, KeyPair: m.rsa}
	case name == "DIFFIE_HELLMAN":
		return &keyx.DiffieHellman{Store: m.device, Groups: []keyx.DHGroup{recordedGroup()}, AllowSmallGroups: true}
	case c.exchange.scheme == "ASYMMETRIC_WRAPPED":
		return &keyx.AsymmetricJOSE{Mechanism: keyx.JOSEMechanism(name), Store: m.device, KeyPair: m.jose}
	}
	revealing, err := m.device.Import(keystore.AESReveal128, keys.wrappingKey())
	if err != nil {
		m.t.Fatal(err)
	}
	return &keyx.LadderOfferer{Form: keyx.LadderForm(name), Store: m.device, Own: revealing.(keystore.Revealer)}
}

// A rawOffer sends an invalid key request.
type rawOffer struct {
	scheme  string
	keydata []byte
}

func (o rawOffer) Scheme() string                                          { return o.scheme }
func (rawOffer) Exposes() msl.Exposure                                     { return msl.Exposure{} }
func (o rawOffer) Offer(context.Context, msl.Requester) (msl.Offer, error) { return o, nil }
func (o rawOffer) KeyData() []byte                                         { return o.keydata }
func (rawOffer) Close() error                                              { return nil }
func (rawOffer) Accept(context.Context, []byte) (msl.Outcome, error) {
	return msl.Outcome{}, errors.ErrUnsupported
}
func (rawOffer) Resume(context.Context, []byte) (*msl.SessionKeys, error) {
	return nil, errors.ErrUnsupported
}
func (rawOffer) Respond(context.Context, msl.Requester, []byte) (*msl.SessionKeys, []byte, error) {
	return nil, nil, errors.ErrUnsupported
}

// requester is a new client of an entity, with one key exchange.
func (m *conforming) requester(c combination, x msl.Offerer) *msl.Client {
	client := m.client(m.entities[c.entity.name], x)
	client.Custody = msl.CustodyImported
	if m.peers != nil {
		client.Peers = m.peers
	}
	return client
}

// prepared returns the requester of a combination. For a ladder it has made the first
// exchange.
func (m *conforming) prepared(t *testing.T, c combination) *msl.Client {
	t.Helper()
	x := m.offer(c)
	if ladder, ok := x.(*keyx.LadderOfferer); ok {
		t.Cleanup(func() { ladder.Close(); ladder.Own.Close() })
	}
	if c.climbs() && c.refused() == 0 {
		first := m.requester(c, x)
		if _, _, err := send(t, first, &msl.Request{RequestTokens: true, Body: msl.BytesBody([]byte("zero"))}); err != nil {
			t.Fatal(err)
		}
		first.Close()
	}
	return m.requester(c, x)
}

func (c combination) request(body string) *msl.Request {
	r := &msl.Request{Encrypted: c.demand.encrypted, Authenticated: c.demand.authenticated,
		NonReplayable: c.demand.nonReplayable, Body: msl.BytesBody([]byte(body))}
	if c.demand.user {
		r.User = conformingUser
	}
	return r
}

// TestConformance sends two messages of every combination in a trusted-services
// network: every day of some, and not of those that TestConformancePeerToPeer takes.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	m := newConforming(t)
	before, _ := m.device.Live()
	t.Run("all", func(t *testing.T) {
		first, step := 0, 1
		if !soak() {
			first, step = 2, everyday()
		}
		for name, all := range everyNth(combinations(), first, step) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for _, c := range all {
					t.Run(c.exchange.name+"/"+c.demand.name, func(t *testing.T) { m.conform(t, c) })
				}
			})
		}
	})
	if after, _ := m.device.Live(); after != before {
		t.Errorf("%d keys of requesters were left", after-before)
	}
	m.checkNothingOpen(t)
}

// everyday is how far apart the combinations are that are tried every day. It is prime to the
// numbers of demands and of key exchanges.
func everyday() int {
	if raceDetector {
		return 29
	}
	return 5
}

// everyNth is one of step combinations, by the name of the entity.
func everyNth(all []combination, first, step int) map[string][]combination {
	sample := map[string][]combination{}
	for i := first; i < len(all); i += step {
		name := all[i].entity.name
		sample[name] = append(sample[name], all[i])
	}
	return sample
}

// checkNothingOpen closes everything that caches keys, and counts the keys left open.
func (m *conforming) checkNothingOpen(t *testing.T) {
	t.Helper()
	m.server.Close()
	for _, e := range m.server.Peers {
		if c, ok := e.(io.Closer); ok {
			c.Close()
		}
	}
	if n, _ := m.store.(*soft.Store).Live(); n != 0 {
		t.Errorf("%d keys of the responder were left", n)
	}
}

func (m *conforming) conform(t *testing.T, c combination) {
	client := m.prepared(t, c)
	defer client.Close()
	if code := c.refused(); code != 0 {
		_, answer, err := send(t, client, c.request("one"))
		wantPeerCode(t, err, code)
		if h := client.Held(); answer != "" || h.MasterToken != nil || h.UserIDTokens != nil {
			t.Errorf("refused, and yet %q, %+v", answer, h)
		}
		return
	}
	first, second := c.sights(conformingUser)
	messages, scheme := 2, c.exchange.scheme
	if c.handshake() {
		messages, scheme = 4, "" // the keys came with the answer to the handshake
	}
	m.ask(t, client, c.request("one"), first, messages, scheme)
	held := client.Held()
	if held.MasterToken == nil || (held.UserIDTokens[conformingUser] != nil) != c.demand.user {
		t.Fatalf("the requester holds %+v", held)
	}
	client.UserAuth = nil // it has to use the token
	m.ask(t, client, c.request("two"), second, 2, "")
	if client.Held().MasterToken != held.MasterToken {
		t.Error("the second message changed the master token")
	}
}

// ask sends a request, and compares what the application saw.
func (m *conforming) ask(t *testing.T, client *msl.Client, req *msl.Request, want sight, messages int, scheme string) {
	t.Helper()
	r, answer, err := send(t, client, req)
	if err != nil {
		t.Fatal(err)
	}
	checkSight(t, answer, want)
	if r.Messages != messages || r.KeyExchange != scheme {
		t.Errorf("%d messages and key exchange %q, want %d and %q", r.Messages, r.KeyExchange, messages, scheme)
	}
}

func checkSight(t *testing.T, answer string, want sight) {
	t.Helper()
	var got sight
	if err := json.Unmarshal([]byte(answer), &got); err != nil || got != want {
		t.Errorf("the application saw %+v, want %+v, %v", got, want, err)
	}
}
