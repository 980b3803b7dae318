package msl_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// An exchangeKind makes both sides of one way to exchange keys.
type exchangeKind struct {
	name, scheme string
	sealed       bool // custody sealed allows it
	server       func(n *network) msl.Responder
	client       func(n *network, identity string, device *soft.Store) msl.Offerer
}

func exchangeKinds(t testing.TB) []exchangeKind {
	t.Helper()
	group, _ := keyx.FindDHGroup("ffdhe2048")
	group.ID = "group"
	kinds := []exchangeKind{{
		"RSA", "ASYMMETRIC_WRAPPED", true,
		func(n *network) msl.Responder { return &keyx.AsymmetricWrapped{Store: n.store} },
		func(_ *network, _ string, device *soft.Store) msl.Offerer { return wrappedWith(t, device) },
	}, {
		"DH", "DIFFIE_HELLMAN", false,
		func(n *network) msl.Responder {
			return &keyx.DiffieHellman{Store: n.store, Groups: []keyx.DHGroup{group}}
		},
		func(_ *network, _ string, device *soft.Store) msl.Offerer {
			return &keyx.DiffieHellman{Store: device, Groups: []keyx.DHGroup{group}}
		},
	}}
	// Other tests make new pairs for each exchange, which takes long.
	pair := keyPair(t, "awe_rsa2048")
	for _, m := range joseMechanisms {
		kinds = append(kinds, exchangeKind{
			string(m), "ASYMMETRIC_WRAPPED", false,
			func(n *network) msl.Responder { return &keyx.AsymmetricJOSE{Mechanism: m, Store: n.store} },
			func(_ *network, _ string, device *soft.Store) msl.Offerer {
				own := provisionPair(t, device, "jose", keystore.RSADecrypt2048, pair).(keyx.DecryptingPair)
				return &keyx.AsymmetricJOSE{Mechanism: m, Store: device, KeyPair: own}
			},
		})
	}
	for _, form := range []keyx.LadderForm{keyx.JWELadder, keyx.JWKLadder} {
		issuer, issuerKey := newStore(t), random(16)
		wrapping := provisionRaw(t, issuer, "wrapping", keystore.AESWrap128, issuerKey).(keystore.DataWrapper)
		revealing := provisionRaw(t, issuer, "revealing", keystore.AESReveal128, issuerKey).(keystore.Revealer)
		kinds = append(kinds, exchangeKind{
			string(form), string(form), false,
			func(n *network) msl.Responder {
				return &keyx.LadderResponder{Form: form, Store: n.store, PSK: n.psk, Wrapping: wrapping, Revealing: revealing}
			},
			func(n *network, identity string, device *soft.Store) msl.Offerer {
				return &keyx.LadderOfferer{Form: form, Store: device, Own: n.givePSK(identity, device)}
			},
		})
	}
	return kinds
}

// givePSK registers pre-shared keys of an entity, whatever its scheme, and gives
// its device the wrapping key.
func (n *network) givePSK(identity string, device *soft.Store) keystore.Revealer {
	n.t.Helper()
	wrapping := random(16)
	seal := func(use string, a keystore.Algorithm, raw []byte) []byte {
		k, err := n.store.(keystore.Importer).Import(a, raw)
		if err != nil {
			n.t.Fatal(err)
		}
		defer k.Close()
		blob, err := n.store.Seal(k, msl.PSKContext(use, identity))
		if err != nil {
			n.t.Fatal(err)
		}
		return blob
	}
	e := n.directory[identity]
	if e.PSK == nil {
		e.PSK = &msl.SealedPSK{Encryption: seal(msl.PSKEncryption, keystore.AES128CBC, random(16)), MAC: seal(msl.PSKMAC, keystore.HMACSHA256, random(32))}
	}
	e.PSK.Wrapping = seal(msl.PSKWrapping, keystore.AESWrap128, wrapping)
	return provisionRaw(n.t, device, "psk wrapping "+identity, keystore.AESReveal128, wrapping).(keystore.Revealer)
}

func entityKinds() map[string]func(n *network) (*msl.Client, string) {
	return map[string]func(n *network) (*msl.Client, string){
		"PSK":  func(n *network) (*msl.Client, string) { return n.pskClient("psk-client"), "psk-client" },
		"RSA":  func(n *network) (*msl.Client, string) { return n.rsaClient("rsa-client"), "rsa-client" },
		"NONE": func(n *network) (*msl.Client, string) { return n.noneClient("none-client"), "none-client" },
	}
}

// TestExchangesNetwork sends messages with each key exchange, with each kind of entity,
// in each custody that allows it, through renewals and a restart of the server.
func TestExchangesNetwork(t *testing.T) {
	skipWithRace(t)
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, kind := range exchangeKinds(t) {
		for _, custody := range []msl.Custody{msl.CustodySealed, msl.CustodyImported, msl.CustodyShared} {
			if custody == msl.CustodySealed && !kind.sealed {
				continue
			}
			n := newNetwork(t, newStore(t))
			n.server.Custody = custody
			n.server.KeyExchanges = []msl.Responder{kind.server(n)}
			for entity, newClient := range entityKinds() {
				t.Run(fmt.Sprintf("%s/%v/%s", kind.name, custody, entity), func(t *testing.T) {
					c, identity := newClient(n)
					c.Custody, c.KeyExchanges = custody, []msl.Offerer{kind.client(n, identity, newStore(t))}
					n.converse(t, c, kind.scheme, custody)
				})
			}
		}
	}
}

func (n *network) converse(t *testing.T, c *msl.Client, scheme string, custody msl.Custody) {
	t.Helper()
	secret := &msl.Request{Encrypted: true, Authenticated: true, NonReplayable: true, Body: msl.BytesBody([]byte("hello"))}
	ask := func(step, want string) {
		t.Helper()
		r, data, err := send(n.t, c, secret)
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if data != "hello" || r.KeyExchange != want {
			t.Errorf("%s: %q, key exchange %q, want %q", step, data, r.KeyExchange, want)
		}
	}
	ask("first", "")
	first := c.Held().MasterToken
	n.checkForm(t, first, custody)
	ask("with the token", "")
	for i := range 3 {
		n.now = n.now.Add(2 * time.Hour)
		ask("renewal", scheme)
		renewed := c.Held().MasterToken
		if renewed.SerialNumber != first.SerialNumber || renewed.SequenceNumber != first.SequenceNumber+int64(i)+1 {
			t.Errorf("renewed as %+v", renewed)
		}
		n.checkForm(t, renewed, custody)
	}
	n.server.Close() // the server loses its caches, but not what is in tokens
	ask("after a restart", "")
}

// checkForm asks for the form of a master token, by who can open it.
func (n *network) checkForm(t *testing.T, token *msl.MasterToken, custody msl.Custody) {
	t.Helper()
	sealedOnly := *n.server.Issuer
	sealedOnly.Shared = false
	s, err := sealedOnly.Open(token)
	if err == nil {
		s.Release()
	}
	if shared := err != nil && strings.Contains(err.Error(), "reference form"); shared != (custody == msl.CustodyShared) {
		t.Errorf("custody %v: %v", custody, err)
	}
}

// refusedWith sends a request that the server must refuse.
func refusedWith(t *testing.T, c *msl.Client, code msl.Code) {
	t.Helper()
	_, _, err := send(t, c, &msl.Request{Encrypted: true, Body: msl.BytesBody([]byte("hello"))})
	wantPeerCode(t, err, code)
}

func wantPeerCode(t *testing.T, err error, code msl.Code) {
	t.Helper()
	var peer *msl.PeerError
	if !errors.As(err, &peer) || peer.Code != code {
		t.Errorf("%v, want %v", err, code)
	}
}

// TestCustodyEnforced requests exchanges that the mode of the server or of the client
// forbids.
func TestCustodyEnforced(t *testing.T) {
	skipWithRace(t)
	kinds := exchangeKinds(t)
	rsa := kinds[0]
	for _, kind := range kinds[1:] {
		t.Run(kind.name, func(t *testing.T) {
			n, device := newNetwork(t, newStore(t)), newStore(t)
			n.server.KeyExchanges = []msl.Responder{kind.server(n)}
			c := n.noneClient("client")
			c.Custody, c.KeyExchanges = msl.CustodyImported, []msl.Offerer{kind.client(n, "client", device)}
			refusedWith(t, c, msl.ErrKeyXFactoryNotFound)

			// If an allowed one is offered too, that one is used.
			n = newNetwork(t, newStore(t))
			n.server.KeyExchanges = []msl.Responder{kind.server(n), rsa.server(n)}
			c = n.noneClient("client")
			c.Custody, c.KeyExchanges = msl.CustodyImported, []msl.Offerer{kind.client(n, "client", newStore(t)), rsa.client(n, "client", newStore(t))}
			if _, _, err := send(t, c, &msl.Request{Encrypted: true, Body: msl.BytesBody([]byte("hello"))}); err != nil {
				t.Fatal(err)
			}
			n.checkForm(t, c.Held().MasterToken, msl.CustodySealed)

			// A client offers nothing that its own mode forbids.
			n.server.Custody = msl.CustodyImported
			c = n.noneClient("other")
			c.KeyExchanges = []msl.Offerer{kind.client(n, "other", newStore(t))}
			_, _, err := send(t, c, &msl.Request{Encrypted: true, Body: msl.BytesBody([]byte("hello"))})
			if err == nil || !strings.Contains(err.Error(), "custody sealed") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestDecryptingRequester exchanges keys from a device that decrypts them to its
// process with a server that is sealed, with new pairs and with a provisioned
// one, and continues after a restart.
func TestDecryptingRequester(t *testing.T) {
	n := softNetwork(t)
	for name, provisioned := range map[string]bool{"new pair": false, "provisioned pair": true} {
		t.Run(name, func(t *testing.T) {
			device := newStore(t)
			x := &keyx.AsymmetricDecrypted{Pairs: device, Sessions: device}
			if provisioned {
				x.KeyPair = provisionPair(t, device, "pair", keystore.RSADecrypt2048, keyPair(t, "awe_rsa2048")).(keyx.DecryptingPair)
			}
			c := n.noneClient("client")
			c.KeyExchanges = []msl.Offerer{x}
			state := must(bolt.OpenClient(filepath.Join(t.TempDir(), "client.db"), "test"))
			defer state.Close()
			c.State = state
			if _, _, err := send(t, c, secret("sealed")); err == nil || !strings.Contains(err.Error(), "custody sealed") {
				t.Errorf("a sealed client offered it: %v", err)
			}
			c.Custody = msl.CustodyImported
			mustSend(t, c, secret("hello"), 4)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			mustSend(t, c, secret("again"), 2)
		})
	}
}

// TestCustodyMechanism offers a mechanism that the mode forbids where another one
// of the scheme is allowed.
func TestCustodyMechanism(t *testing.T) {
	n := newNetwork(t, newStore(t))
	n.server.KeyExchanges = append(n.server.KeyExchanges, &keyx.AsymmetricJOSE{Store: n.store})
	c := n.rsaClient("client")
	c.Custody, c.KeyExchanges = msl.CustodyImported, []msl.Offerer{&keyx.AsymmetricJOSE{Store: newStore(t)}}
	refusedWith(t, c, msl.ErrUnsupportedKeyXMechanism)
}

func TestCustodyNames(t *testing.T) {
	for _, c := range []msl.Custody{msl.CustodySealed, msl.CustodyImported, msl.CustodyShared} {
		got, err := msl.ParseCustody(c.String())
		if err != nil || got != c {
			t.Errorf("%v: %v, %v", c, got, err)
		}
		text, _ := c.MarshalText()
		if err := got.UnmarshalText(text); err != nil || got != c {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	if _, err := msl.ParseCustody("open"); err == nil {
		t.Error("parsed a mode that is not there")
	}
	if s := fmt.Sprint(msl.Custody(9), msl.Side(9), msl.RequestingSide, msl.RespondingSide); s != "custody(9) side(9) requester responder" {
		t.Error(s)
	}
}

// TestRawKeysOverwritten follows the bytes of session keys to their end.
func TestRawKeysOverwritten(t *testing.T) {
	n := newNetwork(t, newStore(t))
	draw := func(c msl.Custody) (*msl.RawKeys, *msl.SessionKeys) {
		raw, err := msl.DrawRawKeys(nil)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := c.Import(n.store, raw)
		if err != nil {
			t.Fatal(err)
		}
		return raw, keys
	}
	gone := func(what string, raw *msl.RawKeys, want bool) {
		t.Helper()
		if (raw.Encryption() == nil && raw.Signature() == nil) != want {
			t.Errorf("%s: gone %v, want %v", what, !want, want)
		}
	}
	raw, keys := draw(msl.CustodyImported)
	gone("imported", raw, true)
	keys.Release()
	raw, keys = draw(msl.CustodyShared)
	gone("for a shared token", raw, false)
	if _, err := n.server.Issuer.Issue("client", nil, 0, keys); err != nil {
		t.Fatal(err)
	}
	gone("with the token issued", raw, true)
	keys.Release()
	raw, keys = draw(msl.CustodyShared)
	keys.Release()
	gone("without a token", raw, true)
	raw, _ = msl.DrawRawKeys(nil)
	if _, err := msl.CustodyShared.Import(noImporter{n.store}, raw); err == nil {
		t.Error("imported without an importer")
	}
	gone("not imported", raw, true)
	if _, err := msl.DrawRawKeys(strings.NewReader("too short")); err == nil {
		t.Error("drew too little")
	}
	if objects, _ := n.store.(*soft.Store).Live(); objects != 0 {
		t.Errorf("%d keys are left", objects)
	}
}

type noImporter struct{ keystore.Store }

// forgetful discards the bytes that a shared token needs.
type forgetful struct{ msl.Responder }

func (f forgetful) Respond(ctx context.Context, from msl.Requester, keydata []byte) (*msl.SessionKeys, []byte, error) {
	from.Custody = msl.CustodySealed
	return f.Responder.Respond(ctx, from, keydata)
}

func TestSharedNeedsBytes(t *testing.T) {
	n := newNetwork(t, newStore(t))
	n.server.Custody = msl.CustodyShared
	n.server.KeyExchanges = []msl.Responder{forgetful{&keyx.AsymmetricWrapped{Store: n.store}}}
	refusedWith(t, n.rsaClient("client"), msl.ErrInternalException)
}

// TestLeavingShared reads tokens of the shared mode at a server that seals new ones.
func TestLeavingShared(t *testing.T) {
	n := newNetwork(t, newStore(t))
	n.server.Custody = msl.CustodyShared
	c := n.rsaClient("client")
	req := &msl.Request{Encrypted: true, Body: msl.BytesBody([]byte("hello"))}
	if _, _, err := send(t, c, req); err != nil {
		t.Fatal(err)
	}
	n.server.Close()
	sealed := *n.server.Issuer
	next := &msl.Server{Name: "server", Local: n.server.Local, Peers: n.server.Peers, KeyExchanges: n.server.KeyExchanges,
		Issuer: &sealed, State: n.state, Directory: n.directory, Limits: n.server.Limits}
	t.Cleanup(func() { next.Close() })
	n.server = next
	sealed.Shared = true
	if _, _, err := send(t, c, req); err != nil {
		t.Fatal(err)
	}
	n.now = n.now.Add(2 * time.Hour)
	if r, _, err := send(t, c, req); err != nil || r.KeyExchange == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	n.checkForm(t, c.Held().MasterToken, msl.CustodySealed)
}
