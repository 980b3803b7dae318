package keyx

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// FuzzTPMRequest reads anything as a request. What can be read is written in one
// form, which means the same.
func FuzzTPMRequest(f *testing.F) {
	c := TPMCertified{Public: []byte("public"), Attest: []byte("attest"), Signature: []byte("signature")}
	f.Add((&tpmRequest{time: 7, storage: c}).encode())
	f.Add((&tpmRequest{time: 1 << 52, storage: c, oaep: c}).encode())
	f.Add([]byte(`{"timestamp":-1,"storagekey":{}}`))
	responder := &TPMResponder{Store: soft.New(), Verifier: credulous{}}
	from := msl.Requester{Identity: "device", Custody: msl.CustodyImported, Time: time.Unix(7, 0)}
	f.Fuzz(func(t *testing.T, keydata []byte) {
		keys, _, err := responder.Respond(context.Background(), from, keydata)
		if err == nil {
			keys.Release()
		}
		r, err := parseTPMRequest(keydata)
		if (err == nil) != (responder.Check(keydata) == nil) {
			t.Fatal("Check is of another opinion")
		}
		if err != nil {
			return
		}
		again, err := parseTPMRequest(r.encode())
		if err != nil || again.time != r.time || !same(again.storage, r.storage) || !same(again.oaep, r.oaep) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}

func same(a, b TPMCertified) bool {
	return bytes.Equal(a.Public, b.Public) && bytes.Equal(a.Attest, b.Attest) && bytes.Equal(a.Signature, b.Signature)
}

// FuzzTPMResponse gives a requester anything as a response. Keys that are made
// and not used must not stay.
func FuzzTPMResponse(f *testing.F) {
	r := tpmRequest{storage: TPMCertified{Public: []byte("storage")}}
	raw := msl.NewRawKeys()
	x := &TPMResponder{Verifier: credulous{}}
	response, err := x.wrap(r, raw)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(response, false)
	r.oaep = r.storage
	if response, err = x.wrap(r, raw); err != nil {
		f.Fatal(err)
	}
	f.Add(response, true)
	f.Fuzz(func(t *testing.T, keydata []byte, outside bool) {
		device := &pretended{Store: soft.New()}
		x := &TPMOfferer{Device: device, Store: device.Store}
		if outside {
			x.Outside = device.Store
		}
		o, err := x.Offer(context.Background(), msl.Requester{Identity: "device"})
		if err != nil {
			t.Fatal(err)
		}
		outcome, err := o.Accept(context.Background(), keydata)
		if err == nil {
			outcome.Keys.Release()
		}
		if err := errors.Join(o.Close(), o.Close()); err != nil {
			t.Fatal(err)
		}
		if objects, _ := device.Live(); objects > 0 {
			t.Fatalf("%d keys are left", objects)
		}
	})
}

// A credulous verifier takes every word, and wraps nothing.
type credulous struct{}

func (credulous) Certified(context.Context, string, TPMUse, TPMCertified, []byte) error { return nil }
func (credulous) Duplicate(storage []byte, a keystore.Algorithm, raw []byte) (keystore.Duplicated, error) {
	return keystore.Duplicated{Public: storage, Duplicate: raw, Seed: storage}, nil
}
func (credulous) EncryptOAEP(_, raw []byte) ([]byte, error) { return raw, nil }

// A pretended TPM imports what is in clear.
type pretended struct{ *soft.Store }

func (p *pretended) NewParent() (TPMParent, error)       { return pretendedKey{p}, nil }
func (p *pretended) NewDecrypter() (TPMDecrypter, error) { return pretendedKey{p}, nil }

type pretendedKey struct{ *pretended }

func (pretendedKey) Public() []byte                                       { return []byte("storage") }
func (pretendedKey) Certify([]byte) (attest, signature []byte, err error) { return nil, nil, nil }
func (pretendedKey) DecryptOAEP(ciphertext []byte) ([]byte, error)        { return ciphertext, nil }
func (pretendedKey) Close() error                                         { return nil }
func (k pretendedKey) Import(a keystore.Algorithm, d keystore.Duplicated) (keystore.Key, error) {
	return k.Store.Import(a, d.Duplicate)
}
