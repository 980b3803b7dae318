package keyx

import (
	"context"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// BenchmarkExchange runs both sides of an exchange on soft keys. Of
// AsymmetricJOSE the requester's key pair is there already.
func BenchmarkExchange(b *testing.B) {
	s := newStore(b)
	pair, err := s.ProvisionKeyPair("awe", keystore.RSADecrypt2048, recordedPair(b))
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range joseMechanisms {
		x := &AsymmetricJOSE{Mechanism: m, Store: s, KeyPair: pair.Key.(DecryptingPair)}
		b.Run(string(m), func(b *testing.B) { benchmark(b, x, x) })
	}
	for _, name := range []string{"modp2048", "ffdhe2048", "ffdhe3072", "ffdhe4096"} {
		g, _ := FindDHGroup(name)
		x := &DiffieHellman{Store: s, Groups: []DHGroup{g}}
		b.Run(name, func(b *testing.B) { benchmark(b, x, x) })
	}
	for _, form := range forms {
		responder, requester := ladders(b, form)
		b.Run(string(form), func(b *testing.B) { benchmark(b, responder, requester) })
	}
}

func benchmark(b *testing.B, responder msl.Responder, requester msl.Offerer) {
	ctx, from := context.Background(), msl.Requester{Identity: "client1", Custody: msl.CustodyImported}
	b.ReportAllocs()
	for b.Loop() {
		offer, err := requester.Offer(ctx, from)
		if err != nil {
			b.Fatal(err)
		}
		keys, response, err := responder.Respond(ctx, from, offer.KeyData())
		if err != nil {
			b.Fatal(err)
		}
		outcome, err := offer.Accept(ctx, response)
		if err != nil {
			b.Fatal(err)
		}
		offer.Close()
		keys.Release()
		outcome.Keys.Release()
	}
}
