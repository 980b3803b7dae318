package msl_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// clientKeys is the requesters' side of the recorded exchanges.
func clientKeys(t testing.TB) map[string]msl.Offerer {
	t.Helper()
	store := newStore(t)
	k := symmetric(t, store, pskClient1)
	psk := entityauth.NewKeySet(k.Encryption, k.MAC,
		provisionRaw(t, store, "wrapping", keystore.AESUnwrap128, pskClient1.wrappingKey()))
	pair := provisionPair(t, store, "awe", keystore.RSAUnwrap2048, keyPair(t, "awe_rsa2048"))
	return map[string]msl.Offerer{
		"SYMMETRIC_WRAPPED":  &keyx.SymmetricOfferer{Keys: psk},
		"ASYMMETRIC_WRAPPED": &keyx.AsymmetricWrapped{Store: store, KeyPair: pair.(keyx.UnwrappingPair), ID: "awe_rsa2048"},
	}
}

func TestVectorsKeyExchange(t *testing.T) {
	var v struct {
		Cases []struct {
			Name              string
			Request, Response encoding
			SessionKeys       struct {
				Encryption hexBytes `json:"encryptionkey_hex"`
				HMAC       hexBytes `json:"hmackey_hex"`
			}
			Error *struct{ InternalCode int }
		}
	}
	readVectors(t, "spec/keyx.json", &v)
	r, client := newRecorded(t), clientKeys(t)
	server := map[string]msl.Responder{}
	for _, x := range r.server.KeyExchanges {
		server[x.Scheme()] = x
	}
	ctx, from, seen := context.Background(), msl.Requester{Identity: "client1"}, 0
	for _, c := range v.Cases {
		var request, response schemed
		if err := json.Unmarshal(c.Request.Bytes, &request); err != nil {
			t.Fatal(err)
		}
		x := server[request.Scheme]
		if x == nil {
			continue
		}
		err := x.Check(request.KeyData)
		if mechanism := strings.TrimPrefix(c.Name, "ASYMMETRIC_WRAPPED "); strings.HasPrefix(mechanism, "JW") {
			if !errors.Is(err, msl.ErrUnsupportedKeyXMechanism) {
				t.Errorf("%s: %v", c.Name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		seen++
		if c.Error != nil {
			if _, _, err := x.Respond(ctx, from, request.KeyData); !errors.Is(err, msl.Code(c.Error.InternalCode-100000)) {
				t.Errorf("%s: %v", c.Name, err)
			}
			continue
		}
		offer, err := client[request.Scheme].Offer(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		sameObject(t, offer.KeyData(), request.KeyData)
		if err := json.Unmarshal(c.Response.Bytes, &response); err != nil {
			t.Fatal(err)
		}
		checkAccepts(t, client[request.Scheme], offer, response.KeyData, c.SessionKeys.Encryption, c.SessionKeys.HMAC)
		checkResponds(t, x, offer, from, request.KeyData)
		if _, err := offer.Accept(ctx, encode(object{"keyid": "SESSION", "keypairid": "x", "encryptionkey": "", "hmackey": ""})); !errors.Is(err, msl.ErrKeyXResponseRequestMismatch) {
			t.Errorf("%s: answer to another request: %v", c.Name, err)
		}
	}
	if seen != 3 {
		t.Errorf("%d cases", seen)
	}
}

// checkAccepts accepts a recorded response, and resumes its session.
func checkAccepts(t *testing.T, x msl.Offerer, offer msl.Offer, keydata, encryption, mac []byte) {
	t.Helper()
	outcome, err := offer.Accept(context.Background(), keydata)
	if err != nil {
		t.Error(err)
		return
	}
	checkSessionKeys(t, outcome.Keys, encryption, mac)
	outcome.Keys.Release()
	keys, err := x.Resume(context.Background(), outcome.Keep)
	if err != nil {
		t.Error(err)
		return
	}
	checkSessionKeys(t, keys, encryption, mac)
	keys.Release()
}

// checkResponds lets a responder and an offerer of this package agree on new keys.
func checkResponds(t *testing.T, x msl.Responder, offer msl.Offer, from msl.Requester, request []byte) {
	t.Helper()
	keys, keydata, err := x.Respond(context.Background(), from, request)
	if err != nil {
		t.Error(err)
		return
	}
	defer keys.Release()
	outcome, err := offer.Accept(context.Background(), keydata)
	if err != nil {
		t.Error(err)
		return
	}
	defer outcome.Keys.Release()
	ours := msl.SymmetricKey{Encryption: keys.Encryption, MAC: keys.Signature}
	theirs := msl.SymmetricKey{Encryption: outcome.Keys.Encryption, MAC: outcome.Keys.Signature}
	data, err := ours.Encrypt([]byte("hello"))
	sum, err2 := theirs.Sign(data)
	if err := errors.Join(err, err2, ours.Verify(data, sum)); err != nil {
		t.Error(err)
	}
	if back, err := theirs.Decrypt(data); err != nil || string(back) != "hello" {
		t.Errorf("%q, %v", back, err)
	}
}
