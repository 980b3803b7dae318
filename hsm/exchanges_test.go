package hsm_test

import (
	"context"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// Sides are the two ends of a key exchange.
type sides struct {
	responder msl.Responder
	requester msl.Offerer
}

// onToken are the exchanges that see key bytes, both sides on one token.
func onToken(t *testing.T, s *hsm.Store) map[string]sides {
	t.Helper()
	group, _ := keyx.FindDHGroup("ffdhe2048")
	dh := &keyx.DiffieHellman{Store: s, Groups: []keyx.DHGroup{group}}
	all := map[string]sides{"DH": {dh, dh}}
	for _, m := range []keyx.JOSEMechanism{keyx.JWERSA, keyx.JWEJSRSA, keyx.JWKRSA} {
		x := &keyx.AsymmetricJOSE{Mechanism: m, Store: s}
		all[string(m)] = sides{x, x}
	}
	raw, issuer := random(16), random(16)
	provision := func(label string, a keystore.Algorithm, raw []byte) keystore.Key {
		v, err := s.Provision(label, a, raw)
		return made(t, v.Key, err)
	}
	b := &boundary{t: t, server: s, wrapping: raw}
	psk := &entityauth.PSK{Directory: b.entities(), Store: s}
	t.Cleanup(func() { psk.Close() })
	own := provision("psk", keystore.AESReveal128, raw).(keystore.Revealer)
	wrapping := provision("issuer-wrapping", keystore.AESWrap128, issuer).(keystore.DataWrapper)
	revealing := provision("issuer-revealing", keystore.AESReveal128, issuer).(keystore.Revealer)
	for _, form := range []keyx.LadderForm{keyx.JWELadder, keyx.JWKLadder} {
		x := &keyx.LadderOfferer{Form: form, Store: s, Own: own}
		t.Cleanup(func() { x.Close() })
		all[string(form)] = sides{&keyx.LadderResponder{Form: form, Store: s, PSK: psk, Wrapping: wrapping, Revealing: revealing}, x}
	}
	return all
}

// TestExchangesOnToken runs the exchanges that see key bytes with a token on both
// sides: what is imported has to be the same key, and nothing may be left.
func TestExchangesOnToken(t *testing.T) {
	s, _ := newStore(t)
	ctx := context.Background()
	for name, both := range onToken(t, s) {
		for _, custody := range []msl.Custody{msl.CustodyImported, msl.CustodyShared} {
			t.Run(name+"/"+custody.String(), func(t *testing.T) {
				from := msl.Requester{Identity: "client", Custody: custody}
				rounds := 1
				if _, ok := both.requester.(*keyx.LadderOfferer); ok {
					rounds = 3 // it climbs
				}
				for range rounds {
					offer, err := both.requester.Offer(ctx, from)
					if err != nil {
						t.Fatal(err)
					}
					keys, response, err := both.responder.Respond(ctx, from, offer.KeyData())
					if err != nil {
						t.Fatal(err)
					}
					outcome, err := offer.Accept(ctx, response)
					if err != nil {
						t.Fatal(err)
					}
					resumed, err := both.requester.Resume(ctx, outcome.Keep)
					if err != nil {
						t.Fatal(err)
					}
					want := tagOf(t, keys)
					if tagOf(t, outcome.Keys) != want || tagOf(t, resumed) != want {
						t.Error("other session keys")
					}
					for _, k := range []*msl.SessionKeys{keys, outcome.Keys, resumed} {
						k.Release()
					}
					offer.Close()
				}
				if x, ok := both.requester.(*keyx.LadderOfferer); ok {
					x.Close()
				}
			})
		}
	}
	if objects, _ := s.Live(); objects != 0 {
		t.Errorf("%d objects are left", objects)
	}
}

func tagOf(t *testing.T, k *msl.SessionKeys) string {
	t.Helper()
	c, err := k.Encryption.Encrypt(make([]byte, 16), []byte("the same"))
	m, err2 := k.Signature.Sum([]byte("the same"))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return string(c) + string(m)
}

// TestNoPKCS1OnToken requests a mechanism that the token does not have: the error comes
// before anything is sent, and no key pair stays behind.
func TestNoPKCS1OnToken(t *testing.T) {
	s, _ := newStore(t)
	before, _ := s.Live()
	x := &keyx.AsymmetricJOSE{Mechanism: keyx.JWKRSAES, Store: s}
	_, err := x.Offer(context.Background(), msl.Requester{Identity: "client", Custody: msl.CustodyImported})
	if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, msl.ErrDecryptNotSupported) {
		t.Errorf("%v", err)
	}
	if after, _ := s.Live(); after != before {
		t.Errorf("%d objects are left", after-before)
	}
}
