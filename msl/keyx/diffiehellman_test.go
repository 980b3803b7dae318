package keyx

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

type dhVectors struct {
	Zeros []struct {
		Input  hexBytes `json:"input_hex"`
		Output hexBytes `json:"output_hex"`
	} `json:"correctNullBytes"`
	Exchanges []struct {
		Why          string
		ClientX      hexBytes `json:"client_x_hex"`
		ServerX      hexBytes `json:"server_x_hex"`
		ClientPublic []byte   `json:"client_publickey_b64"`
		ServerPublic []byte   `json:"server_publickey_b64"`
		Encryption   hexBytes `json:"encryptionkey_hex"`
		HMAC         hexBytes `json:"hmackey_hex"`
	}
}

// recordedDH is a side whose private value is known.
func recordedDH(store keystore.Store, x []byte) *DiffieHellman {
	random := append(make([]byte, 64-len(x)), x...)
	return &DiffieHellman{Store: store, Groups: []DHGroup{smallGroup()}, AllowSmallGroups: true, Rand: bytes.NewReader(random)}
}

func dhData(id string, public []byte) []byte {
	b, _ := json.Marshal(map[string]any{"parametersid": id, "publickey": public})
	return b
}

func TestVectorsDH(t *testing.T) {
	var v dhVectors
	readVectors(t, "spec/dh.json", &v)
	for _, c := range v.Zeros {
		if got := oneZero(c.Input); !bytes.Equal(got, c.Output) {
			t.Errorf("%x: %x, want %x", c.Input, got, c.Output)
		}
	}
	if len(v.Zeros) < 9 || len(v.Exchanges) < 5 {
		t.Errorf("%d and %d cases", len(v.Zeros), len(v.Exchanges))
	}
	store, ctx, from := newStore(t), context.Background(), msl.Requester{Identity: "client1"}
	for _, c := range v.Exchanges {
		want := rawFingerprint(t, c.Encryption, c.HMAC)
		offer, err := recordedDH(store, c.ClientX).Offer(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		sameObject(t, c.Why, offer.KeyData(), dhData("dh_default1", c.ClientPublic))
		keys, response, err := recordedDH(store, c.ServerX).Respond(ctx, from, offer.KeyData())
		if err != nil {
			t.Fatal(err)
		}
		sameObject(t, c.Why, response, dhData("dh_default1", c.ServerPublic))
		// As it was sent, and with other numbers of zeros than one.
		plain := bytes.TrimLeft(c.ServerPublic, "\x00")
		for _, public := range [][]byte{c.ServerPublic, plain, append(make([]byte, 9), plain...)} {
			outcome, err := offer.Accept(ctx, dhData("dh_default1", public))
			if err != nil {
				t.Fatalf("%s: %v", c.Why, err)
			}
			if fingerprint(t, outcome.Keys) != want || fingerprint(t, keys) != want {
				t.Errorf("%s: other session keys", c.Why)
			}
			outcome.Keys.Release()
		}
		keys.Release()
	}
}

func TestDHRefused(t *testing.T) {
	store, ctx, from := newStore(t), context.Background(), msl.Requester{Identity: "client1"}
	g := smallGroup()
	minus := func(n int64) []byte { return new(big.Int).Sub(g.P, big.NewInt(n)).Bytes() }
	x := &DiffieHellman{Store: store, Groups: []DHGroup{g}, AllowSmallGroups: true}
	for what, c := range map[string]struct {
		keydata []byte
		want    msl.Code
		formed  bool // well, so that Check has nothing against it
	}{
		"nothing":         {[]byte(`{}`), msl.ErrMSLParseError, false},
		"no public value": {[]byte(`{"parametersid":"dh_default1"}`), msl.ErrMSLParseError, false},
		"another group":   {dhData("dh", []byte{2}), msl.ErrUnknownKeyXParametersID, true},
		"empty":           {dhData(g.ID, []byte{}), msl.ErrKeyXInvalidPublicKey, false},
		"zero":            {dhData(g.ID, []byte{0, 0}), msl.ErrKeyXInvalidPublicKey, true},
		"one":             {dhData(g.ID, []byte{0, 1}), msl.ErrKeyXInvalidPublicKey, true},
		"p-1":             {dhData(g.ID, minus(1)), msl.ErrKeyXInvalidPublicKey, true},
		"p":               {dhData(g.ID, minus(0)), msl.ErrKeyXInvalidPublicKey, true},
		"more than p":     {dhData(g.ID, minus(-5)), msl.ErrKeyXInvalidPublicKey, true},
		"far too long":    {dhData(g.ID, bytes.Repeat([]byte{0xff}, 100000)), msl.ErrKeyXInvalidPublicKey, true},
	} {
		_, _, err := x.Respond(ctx, from, c.keydata)
		if checked := x.Check(c.keydata); !errors.Is(err, c.want) || c.formed != (checked == nil) || !c.formed && !errors.Is(checked, c.want) {
			t.Errorf("%s: %v and %v, want %v", what, err, checked, c.want)
		}
		offer, err := x.Offer(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		if c.want == msl.ErrUnknownKeyXParametersID {
			c.want = msl.ErrKeyXResponseRequestMismatch
		}
		if _, err := offer.Accept(ctx, c.keydata); !errors.Is(err, c.want) {
			t.Errorf("answer, %s: %v, want %v", what, err, c.want)
		}
	}
	for _, y := range [][]byte{{2}, minus(2)} {
		keys, _, err := x.Respond(ctx, from, dhData(g.ID, y))
		if err != nil {
			t.Fatalf("%x: %v", y, err)
		}
		keys.Release()
	}
	offer, _ := x.Offer(ctx, from)
	private := offer.(*dhOffer).private
	offer.Close()
	offer.Close()
	if _, err := offer.Accept(ctx, dhData(g.ID, []byte{2})); !errors.Is(err, msl.ErrKeyXPrivateKeyMissing) {
		t.Errorf("after Close: %v", err)
	}
	if words := private.Bits(); slices.ContainsFunc(words, func(w big.Word) bool { return w != 0 }) {
		t.Error("the private value was not overwritten")
	}
}

// TestDHGroupRefused configures groups that are not used.
func TestDHGroupRefused(t *testing.T) {
	ctx, from, store := context.Background(), msl.Requester{}, newStore(t)
	big2048, _ := FindDHGroup("modp2048")
	for what, x := range map[string]*DiffieHellman{
		"none":        {Store: store},
		"small":       {Store: store, Groups: []DHGroup{smallGroup()}},
		"empty":       {Store: store, Groups: []DHGroup{{ID: "x"}}, AllowSmallGroups: true},
		"tiny":        {Store: store, Groups: []DHGroup{{ID: "x", P: big.NewInt(23), G: big.NewInt(5)}}, AllowSmallGroups: true},
		"generator 1": {Store: store, Groups: []DHGroup{{ID: "x", P: big2048.P, G: big.NewInt(1)}}},
		"too large":   {Store: store, Groups: []DHGroup{{ID: "x", P: new(big.Int).Lsh(big.NewInt(1), 9000), G: big.NewInt(2)}}},
	} {
		if _, err := x.Offer(ctx, from); !errors.Is(err, msl.ErrUnknownKeyXParametersID) {
			t.Errorf("%s: offer: %v", what, err)
		}
		if len(x.Groups) == 0 {
			continue
		}
		if _, _, err := x.Respond(ctx, from, dhData(x.Groups[0].ID, []byte{2})); !errors.Is(err, msl.ErrUnknownKeyXParametersID) {
			t.Errorf("%s is taken: %v", what, err)
		}
	}
}

// TestDHGroups makes the primes again, by the formulas of RFC 3526 and RFC 7919.
func TestDHGroups(t *testing.T) {
	type row struct {
		bits  uint
		plus  int64
		digit func(uint) *big.Int
	}
	rows := map[string]row{
		"modp2048": {2048, 124476, piBits}, "modp3072": {3072, 1690314, piBits}, "modp4096": {4096, 240904, piBits},
		"modp6144": {6144, 929484, piBits}, "modp8192": {8192, 4743158, piBits},
		"ffdhe2048": {2048, 560316, eBits}, "ffdhe3072": {3072, 2625351, eBits}, "ffdhe4096": {4096, 5736041, eBits},
		"ffdhe6144": {6144, 15705020, eBits}, "ffdhe8192": {8192, 10965728, eBits},
	}
	if len(DHGroups()) != len(rows) {
		t.Errorf("%d groups", len(DHGroups()))
	}
	power := func(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }
	for i, g := range DHGroups() {
		if name := DHGroupIDs()[i]; name != g.ID {
			t.Errorf("%s is called %s", g.ID, name)
		}
		r := rows[g.ID]
		want := new(big.Int).Sub(power(r.bits), power(r.bits-64))
		want.Sub(want, big.NewInt(1))
		middle := new(big.Int).Add(r.digit(r.bits-130), big.NewInt(r.plus))
		want.Add(want, middle.Lsh(middle, 64))
		if g.P.Cmp(want) != 0 || g.G.Int64() != 2 {
			t.Errorf("%s is another group", g.ID)
		}
		if half := new(big.Int).Rsh(g.P, 1); r.bits <= 3072 && (!g.P.ProbablyPrime(1) || !half.ProbablyPrime(1)) {
			t.Errorf("%s: not a safe prime", g.ID)
		}
		if found, ok := FindDHGroup(g.ID); !ok || found.P.Cmp(g.P) != 0 {
			t.Errorf("%s is not found", g.ID)
		}
	}
	if _, ok := FindDHGroup("modp1024"); ok {
		t.Error("found a group that is not there")
	}
}

// piBits is ⌊2ⁿ π⌋, by Machin's formula.
func piBits(n uint) *big.Int {
	one := new(big.Int).Lsh(big.NewInt(1), n+64)
	arctan := func(inverse int64) *big.Int {
		x := new(big.Int).Quo(one, big.NewInt(inverse))
		sum, square := new(big.Int).Set(x), big.NewInt(inverse*inverse)
		for i, sign := int64(3), int64(-1); x.Sign() > 0; i, sign = i+2, -sign {
			x.Quo(x, square)
			sum.Add(sum, new(big.Int).Quo(x, big.NewInt(sign*i)))
		}
		return sum
	}
	pi := arctan(5)
	pi.Mul(pi, big.NewInt(4)).Sub(pi, arctan(239)).Mul(pi, big.NewInt(4))
	return pi.Rsh(pi, 64)
}

// eBits is ⌊2ⁿ e⌋.
func eBits(n uint) *big.Int {
	term := new(big.Int).Lsh(big.NewInt(1), n+64)
	sum := new(big.Int).Set(term)
	for i := int64(1); term.Sign() > 0; i++ {
		term.Quo(term, big.NewInt(i))
		sum.Add(sum, term)
	}
	return sum.Rsh(sum, 64)
}

// TestDHBuiltIn agrees in each built-in group that a server would take.
func TestDHBuiltIn(t *testing.T) {
	ctx, from, store := context.Background(), msl.Requester{Identity: "client1"}, newStore(t)
	for _, g := range DHGroups() {
		if g.P.BitLen() > 4096 && testing.Short() {
			continue
		}
		g.ID = "agreed name of " + g.ID
		x := &DiffieHellman{Store: store, Groups: []DHGroup{g}}
		offer, err := x.Offer(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		if n := offer.(*dhOffer).private.BitLen(); n > 640 || n < 600 {
			t.Errorf("%s: private value of %d bits", g.ID, n)
		}
		keys, response, err := x.Respond(ctx, from, offer.KeyData())
		if err != nil {
			t.Fatal(err)
		}
		outcome, err := offer.Accept(ctx, response)
		if err != nil || fingerprint(t, outcome.Keys) != fingerprint(t, keys) {
			t.Errorf("%s: %v", g.ID, err)
		}
	}
}

func FuzzDH(f *testing.F) {
	f.Add(dhData("dh_default1", []byte{0, 2}))
	f.Add(dhData("dh_default1", smallGroup().P.Bytes()))
	f.Add([]byte(`{"parametersid":"dh_default1","publickey":""}`))
	store := newStore(f)
	x := &DiffieHellman{Store: store, Groups: []DHGroup{smallGroup()}, AllowSmallGroups: true}
	f.Fuzz(func(t *testing.T, b []byte) { fuzzKeyData(t, x, x, b) })
}

// fuzzKeyData gives both sides any key data.
func fuzzKeyData(t *testing.T, x msl.Responder, requester msl.Offerer, b []byte) {
	ctx, from := context.Background(), msl.Requester{Identity: "client1", Custody: msl.CustodyImported}
	hasCode := func(err error) {
		t.Helper()
		var e *msl.Error
		if err != nil && (!errors.As(err, &e) || e.Code == msl.ErrInternalException) {
			t.Errorf("not an error of the protocol: %v", err)
		}
	}
	checked := x.Check(b)
	hasCode(checked)
	keys, response, err := x.Respond(ctx, from, b)
	hasCode(err)
	if err == nil {
		if checked != nil {
			t.Errorf("answered what Check refuses: %v", checked)
		}
		keys.Release()
	}
	offer, err := requester.Offer(ctx, from)
	if err != nil {
		t.Fatal(err)
	}
	defer offer.Close()
	for _, keydata := range [][]byte{b, response} {
		outcome, err := offer.Accept(ctx, keydata)
		hasCode(err)
		if err == nil {
			outcome.Keys.Release()
		}
	}
	_, err = requester.Resume(ctx, b)
	hasCode(err)
}
