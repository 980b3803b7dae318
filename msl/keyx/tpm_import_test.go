package keyx_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// agree lets each side read what the other one wrote.
func agree(t testing.TB, a, b *msl.SessionKeys) {
	t.Helper()
	iv, text := make([]byte, 16), []byte("what both must read")
	for _, sides := range [][2]*msl.SessionKeys{{a, b}, {b, a}} {
		sealed := must[[]byte](t)(sides[0].Encryption.Encrypt(iv, text))
		if got, err := sides[1].Encryption.Decrypt(iv, sealed); err != nil || !bytes.Equal(got, text) {
			t.Errorf("read %q, %v", got, err)
		}
	}
	if !bytes.Equal(must[[]byte](t)(a.Signature.Sum(text)), must[[]byte](t)(b.Signature.Sum(text))) {
		t.Error("the sides have other HMAC keys")
	}
}

// TestTPMImport goes through the exchange with a TPM, and restarts the device.
func TestTPMImport(t *testing.T) {
	p := newPair(t, nil)
	outcome, server, response := p.exchange(t)
	agree(t, outcome.Keys, server)
	for what, k := range map[string]keystore.Key{"encryption": outcome.Keys.Encryption, "HMAC": outcome.Keys.Signature} {
		if _, err := p.store.Seal(k, nil); !errors.Is(err, keystore.ErrLocked) {
			t.Errorf("%s key: %v, want one in the TPM that was sealed once", what, err)
		}
	}
	if len(p.server.raw) != 2 {
		t.Fatalf("the server imported %d keys", len(p.server.raw))
	}
	for _, raw := range p.server.raw {
		for what, b := range map[string][]byte{"response": response, "what is kept": outcome.Keep} {
			if bytes.Contains(decoded(t, b), raw) {
				t.Errorf("the %s has a key in it", what)
			}
		}
	}
	outcome.Keys.Release()
	p.isEmpty(t)

	p.restart(t)
	p.asker = &keyx.TPMOfferer{Store: p.store, Device: p.chip}
	keys := must[*msl.SessionKeys](t)(p.asker.Resume(context.Background(), outcome.Keep))
	agree(t, keys, server)
	keys.Release()
	server.Release()
	p.isEmpty(t)

	// A cleared TPM has lost them, and says so.
	p.device.Close()
	p.power.Clear(t)
	device := must[*tpm.Device](t)(tpm.NewDevice(p.power.Dial, time.Minute))
	defer device.Close()
	store := must[*tpm.Store](t)(device.InitStore(tpm.StoreConfig{State: p.state + ".new"}))
	defer store.Close()
	_, err := (&keyx.TPMOfferer{Store: store}).Resume(context.Background(), outcome.Keep)
	if !errors.Is(err, keystore.ErrForeign) {
		t.Errorf("after TPM2_Clear: %v", err)
	}
	if _, err := (&keyx.TPMOfferer{}).Resume(context.Background(), outcome.Keep); !errors.Is(err, msl.ErrKeyXPrivateKeyMissing) {
		t.Errorf("without a store: %v", err)
	}
}

// TestTPMImportWithoutAES has the HMAC key in the TPM, and the other outside.
func TestTPMImportWithoutAES(t *testing.T) {
	p := newPair(t, tpmtest.WithoutEncryptDecrypt)
	if p.outside == nil {
		t.Fatal("the TPM has AES")
	}
	outcome, server, response := p.exchange(t)
	agree(t, outcome.Keys, server)
	if outcome.Keep != nil {
		t.Error("a key that is outside was kept")
	}
	for _, raw := range p.server.raw {
		if bytes.Contains(decoded(t, response), raw) {
			t.Error("the response has a key in it")
		}
	}
	if _, err := p.store.Seal(outcome.Keys.Signature, nil); err != nil {
		t.Errorf("the HMAC key is not in the TPM: %v", err)
	}
	if _, err := p.outside.Seal(outcome.Keys.Encryption, nil); err != nil {
		t.Errorf("the encryption key is not outside: %v", err)
	}
	outcome.Keys.Release()
	server.Release()
	p.isEmpty(t)
}

// decoded is all byte strings of a JSON object, one after the other, behind the
// text itself.
func decoded(t testing.TB, text []byte) []byte {
	t.Helper()
	all := bytes.Clone(text)
	var walk func(raw json.RawMessage)
	walk = func(raw json.RawMessage) {
		var object map[string]json.RawMessage
		var b []byte
		if json.Unmarshal(raw, &object) == nil {
			for _, member := range object {
				walk(member)
			}
		} else if json.Unmarshal(raw, &b) == nil {
			all = append(all, b...)
		}
	}
	walk(text)
	return all
}

// TestTPMImportExposes declares what each side sees.
func TestTPMImportExposes(t *testing.T) {
	for _, c := range []struct {
		x    interface{ Exposes() msl.Exposure }
		want bool
	}{
		{&keyx.TPMResponder{}, true},
		{&keyx.TPMOfferer{}, false},
		{&keyx.TPMOfferer{Outside: soft.New()}, true},
	} {
		if e := c.x.Exposes(); e.Bytes != c.want || e.Why == "" {
			t.Errorf("%+v, want %v", e, c.want)
		}
	}
}

// token makes a master token of the device.
func (p *pair) token(t testing.TB) *msl.MasterToken {
	t.Helper()
	store := soft.New()
	t.Cleanup(func() { store.Close() })
	cipher := must[keystore.Key](t)(store.Import(keystore.AES128CBC, make([]byte, 16))).(keystore.Cipher)
	mac := must[keystore.Key](t)(store.Import(keystore.HMACSHA256, make([]byte, 32))).(keystore.MAC)
	i := &msl.Issuer{Name: "server", Store: store, Keys: []msl.IssuerKeys{{Version: 1, Encryption: cipher, MAC: mac}}}
	keys := msl.NewSessionKeys(must[keystore.Key](t)(store.Generate(keystore.AES128CBC)).(keystore.Cipher),
		must[keystore.Key](t)(store.Generate(keystore.HMACSHA256)).(keystore.MAC))
	return must[*msl.Session](t)(i.Issue(p.name, nil, 0, keys)).Token
}

// TestTPMImportBinding shows a request at another occasion than that it was made
// for.
func TestTPMImportBinding(t *testing.T) {
	ctx := context.Background()
	p := newPair(t, nil)
	other := newChip(t, p.office, nil)
	token, another := p.token(t), p.token(t)
	for what, c := range map[string]struct {
		made, shown func(*msl.Requester)
	}{
		"another message":         {nil, func(r *msl.Requester) { r.MessageID++ }},
		"another device":          {nil, func(r *msl.Requester) { r.Identity = other.name }},
		"an unknown device":       {nil, func(r *msl.Requester) { r.Identity = "nobody" }},
		"a master token":          {nil, func(r *msl.Requester) { r.Token = token }},
		"no master token":         {func(r *msl.Requester) { r.Token = token }, func(r *msl.Requester) { r.Token = nil }},
		"another master token":    {func(r *msl.Requester) { r.Token = token }, func(r *msl.Requester) { r.Token = another }},
		"another one's token":     {func(r *msl.Requester) { r.Token = token }, func(r *msl.Requester) { r.Identity = other.name }},
		"later than the window":   {nil, func(r *msl.Requester) { r.Time = r.Time.Add(5*time.Minute + time.Second) }},
		"earlier than the window": {nil, func(r *msl.Requester) { r.Time = r.Time.Add(-5*time.Minute - time.Second) }},
		"years later":             {nil, func(r *msl.Requester) { r.Time = r.Time.Add(100 * 365 * 24 * time.Hour) }},
	} {
		made := p.from
		if c.made != nil {
			c.made(&made)
		}
		o := must[msl.Offer](t)(p.asker.Offer(ctx, made))
		shown := made
		c.shown(&shown)
		if _, _, err := p.responder.Respond(ctx, shown, o.KeyData()); !errors.Is(err, msl.ErrKeyXIncorrectData) {
			t.Errorf("%s: %v", what, err)
		}
		keys, _, err := p.responder.Respond(ctx, made, o.KeyData()) // it was good
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		keys.Release()
		if made.Token == nil { // else the sequence number of the token is what counts
			if _, _, err = p.responder.Respond(ctx, made, o.KeyData()); !errors.Is(err, msl.ErrKeyXIncorrectData) {
				t.Errorf("%s: the second time: %v", what, err)
			}
		}
		o.Close()
	}
	for _, within := range []time.Duration{-5*time.Minute + time.Second, 5*time.Minute - time.Second} {
		from := p.from
		from.Time = from.Time.Add(within)
		keys, _, err := p.responder.Respond(ctx, from, p.offer(t).KeyData())
		if err != nil {
			t.Errorf("%v late: %v", within, err)
			continue
		}
		keys.Release()
	}
	if n := len(p.server.raw) / 2; n != 12 {
		t.Errorf("keys were drawn %d times, want 12: none for what is refused", n)
	}
}

// edited changes members of a JSON object.
func edited(t testing.TB, text []byte, change func(map[string]any)) []byte {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	change(object)
	return must[[]byte](t)(json.Marshal(object))
}

// TestTPMImportRequests shows keys that the attestation key did not certify for
// their use.
func TestTPMImportRequests(t *testing.T) {
	p := newPair(t, tpmtest.WithoutEncryptDecrypt)
	other := newChip(t, p.office, nil)
	foreign := must[msl.Offer](t)((&keyx.TPMOfferer{Device: other}).Offer(context.Background(), p.from))
	defer foreign.Close()
	forged := forgedStorageKey(t)
	good := p.offer(t).KeyData()
	var theirs map[string]any
	if err := json.Unmarshal(foreign.KeyData(), &theirs); err != nil {
		t.Fatal(err)
	}
	member := func(o map[string]any, name string) map[string]any { return o[name].(map[string]any) }
	for what, change := range map[string]func(map[string]any){
		"a key in software":        func(o map[string]any) { member(o, "storagekey")["public"] = forged },
		"the key of another TPM":   func(o map[string]any) { o["storagekey"] = theirs["storagekey"] },
		"the keys swapped":         func(o map[string]any) { o["storagekey"], o["decryptionkey"] = o["decryptionkey"], o["storagekey"] },
		"decryption by a storage":  func(o map[string]any) { o["decryptionkey"] = o["storagekey"] },
		"storage by a decryption":  func(o map[string]any) { o["storagekey"] = o["decryptionkey"] },
		"another's word":           func(o map[string]any) { member(o, "decryptionkey")["attest"] = member(o, "storagekey")["attest"] },
		"another's signature":      func(o map[string]any) { member(o, "decryptionkey")["signature"] = member(o, "storagekey")["signature"] },
		"another time":             func(o map[string]any) { o["timestamp"] = o["timestamp"].(float64) + 1 },
		"a time without end":       func(o map[string]any) { o["timestamp"] = float64(1 << 53) },
		"a time before everything": func(o map[string]any) { o["timestamp"] = 0 },
		"an empty signature":       func(o map[string]any) { member(o, "storagekey")["signature"] = "" },
	} {
		_, _, err := p.responder.Respond(context.Background(), p.from, edited(t, good, change))
		if !errors.Is(err, msl.ErrKeyXIncorrectData) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, c := range map[string]struct {
		keydata []byte
		want    msl.Code
	}{
		"no time":          {edited(t, good, func(o map[string]any) { delete(o, "timestamp") }), msl.ErrMSLParseError},
		"no storage key":   {edited(t, good, func(o map[string]any) { delete(o, "storagekey") }), msl.ErrMSLParseError},
		"no attestation":   {edited(t, good, func(o map[string]any) { delete(member(o, "storagekey"), "attest") }), msl.ErrMSLParseError},
		"a text for a key": {edited(t, good, func(o map[string]any) { o["decryptionkey"] = "none" }), msl.ErrMSLParseError},
		"no Base64":        {edited(t, good, func(o map[string]any) { member(o, "storagekey")["public"] = "?" }), msl.ErrMSLParseError},
		"half of it":       {good[:len(good)/2], msl.ErrMSLParseError},
		"something else":   {[]byte("[]"), msl.ErrMSLParseError},
		"nothing":          {nil, msl.ErrMSLParseError},
	} {
		_, _, err := p.responder.Respond(context.Background(), p.from, c.keydata)
		if !errors.Is(err, c.want) || !errors.Is(p.responder.Check(c.keydata), c.want) {
			t.Errorf("%s: %v and %v, want %d", what, err, p.responder.Check(c.keydata), c.want)
		}
	}
	if len(p.server.raw) > 0 {
		t.Error("keys were drawn for what was refused")
	}
	if _, _, err := (&keyx.TPMResponder{Store: p.server}).Respond(context.Background(), p.from, good); !errors.Is(err, msl.ErrWrapNotSupported) {
		t.Errorf("without a verifier: %v", err)
	}
	keys, _, err := p.responder.Respond(context.Background(), p.from, good)
	if err != nil {
		t.Fatal(err)
	}
	keys.Release()
}

// forgedStorageKey is the public area of a storage key that is not in a TPM. An attacker
// has its private half.
func forgedStorageKey(t testing.TB) []byte {
	t.Helper()
	k := must[keystore.Key](t)(soft.New().Generate(keystore.ECDSAP256)).(interface{ Public() crypto.PublicKey }).Public().(*ecdsa.PublicKey)
	area := tpm2.ECCSRKTemplate
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		//lint:ignore SA1019 a TPM wants the coordinates
		X: tpm2.TPM2BECCParameter{Buffer: k.X.FillBytes(make([]byte, 32))},
		//lint:ignore SA1019 a TPM wants the coordinates
		Y: tpm2.TPM2BECCParameter{Buffer: k.Y.FillBytes(make([]byte, 32))},
	})
	return tpm2.Marshal(area)
}

// TestTPMImportRevoked asks an enrolled device's word once more after it was
// revoked.
func TestTPMImportRevoked(t *testing.T) {
	ctx := context.Background()
	p := newPair(t, nil)
	p.from.Token = p.token(t)
	offer := p.offer(t)
	records, err := p.office.List(ctx)
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	if err := p.office.RevokeDevice(ctx, records[0].ID, "stolen"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.responder.Respond(ctx, p.from, offer.KeyData()); !errors.Is(err, msl.ErrKeyXIncorrectData) {
		t.Error(err)
	}
}

// BenchmarkTPMImport is the whole exchange, with the number of commands to the
// TPM of the requester.
func BenchmarkTPMImport(b *testing.B) {
	for name, quirk := range map[string]tpmtest.Quirk{"imported": nil, "without-aes": tpmtest.WithoutEncryptDecrypt} {
		b.Run(name, func(b *testing.B) {
			p := newPair(b, quirk)
			before := p.commands.Load()
			for b.Loop() {
				outcome, server, _ := p.exchange(b)
				outcome.Keys.Release()
				server.Release()
			}
			b.ReportMetric(float64(p.commands.Load()-before)/float64(b.N), "commands/op")
		})
	}
}
