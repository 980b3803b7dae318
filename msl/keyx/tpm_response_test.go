package keyx_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestTPMImportResponses gives the requester keys that could leave its TPM, that
// were changed, or that are of another exchange.
func TestTPMImportResponses(t *testing.T) {
	ctx := context.Background()
	p := newPair(t, nil)
	offer, another := p.offer(t), p.offer(t)
	respond := func(o msl.Offer) []byte {
		keys, response, err := p.responder.Respond(ctx, p.from, o.KeyData())
		if err != nil {
			t.Fatal(err)
		}
		keys.Release()
		return response
	}
	good, elsewhere := respond(offer), respond(another)
	area := func(change func(*tpm2.TPMTPublic)) func(map[string]any) {
		return func(o map[string]any) {
			var d keystore.Duplicated
			mac := o["hmackey"].(map[string]any)
			if err := json.Unmarshal([]byte(`"`+mac["public"].(string)+`"`), &d.Public); err != nil {
				t.Fatal(err)
			}
			public := must[*tpm2.TPMTPublic](t)(tpm2.Unmarshal[tpm2.TPMTPublic](d.Public))
			change(public)
			mac["public"] = tpm2.Marshal(public)
		}
	}
	imports := 0
	commands := p.commands.Load()
	for what, change := range map[string]func(map[string]any){
		"a policy to duplicate": area(func(p *tpm2.TPMTPublic) { p.AuthPolicy.Buffer = make([]byte, 32) }),
		"signs and decrypts":    area(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Decrypt = true }),
		"made in the TPM":       area(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SensitiveDataOrigin = true }),
		"fixed to the TPM":      area(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM, p.ObjectAttributes.FixedParent = true, true }),
		"swapped":               func(o map[string]any) { o["hmackey"], o["encryptionkey"] = o["encryptionkey"], o["hmackey"] },
		"twice the same":        func(o map[string]any) { o["hmackey"] = o["encryptionkey"] },
		"OAEP was not asked":    func(o map[string]any) { o["encryptionkey"] = "AAAA" },
		"no HMAC key":           func(o map[string]any) { delete(o, "hmackey") },
		"no encryption key":     func(o map[string]any) { delete(o, "encryptionkey") },
		"no seed":               func(o map[string]any) { delete(o["hmackey"].(map[string]any), "seed") },
		"another seed": func(o map[string]any) {
			o["hmackey"].(map[string]any)["seed"] = o["encryptionkey"].(map[string]any)["seed"]
		},
		"a key of another exchange": func(o map[string]any) {
			var other map[string]any
			if err := json.Unmarshal(elsewhere, &other); err != nil {
				t.Fatal(err)
			}
			maps.Copy(o, other)
		},
	} {
		outcome, err := offer.Accept(ctx, edited(t, good, change))
		if err == nil {
			t.Errorf("%s: it is taken", what)
			outcome.Keys.Release()
		}
		if !errors.Is(err, msl.ErrUnwrapError) {
			t.Errorf("%s: %v", what, err)
		}
		imports++
	}
	if p.commands.Load()-commands > int64(40*imports) {
		t.Errorf("%d commands for %d refusals", p.commands.Load()-commands, imports)
	}
	for n := 0; n < len(good); n += 7 {
		if _, err := offer.Accept(ctx, good[:n]); err == nil {
			t.Errorf("%d of %d bytes are taken", n, len(good))
		}
	}
	outcome, err := offer.Accept(ctx, good)
	if err != nil {
		t.Fatal(err)
	}
	outcome.Keys.Release()
	offer.Close()
	if _, err := offer.Accept(ctx, good); !errors.Is(err, keystore.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	another.Close()
	p.isEmpty(t)
}
